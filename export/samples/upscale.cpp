// Upscale a face with ncnn, after the device has proved on the probes that it computes the same.
//
//     ./upscale int8.param int8.bin int8.probes.bin [face.ppm out.ppm]
//
// face.ppm is an RGB image (P6) of the size that the model reads. Exit status: 0 done, 1 a file
// cannot be read or is something else, 3 the network drifts from FP32 on this device.

#include <net.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {
struct Image {  // RGB, a byte each, row by row
    int side = 0;
    std::vector<uint8_t> pixels;
};

struct Probes {
    int faces = 0;
    float least_db = 0, least_stress_db = 0;
    std::vector<Image> lr, sr;  // the first `faces` are faces, the others stress probes
};

// "AMNPROB1", int32 count, faces, lr side, sr side, float32 limits in dB of faces and of stress
// probes, then all lr and all sr images; little-endian.
bool read_probes(const std::string& path, Probes& probes) {
    std::ifstream file(path, std::ios::binary);
    char magic[8];
    int32_t sizes[4];
    float limits[2];
    if (!file.read(magic, 8) || std::memcmp(magic, "AMNPROB1", 8) != 0) return false;
    file.read(reinterpret_cast<char*>(sizes), sizeof sizes);
    file.read(reinterpret_cast<char*>(limits), sizeof limits);
    const bool sound = file && sizes[0] > 0 && sizes[0] <= 64 && sizes[1] > 0 && sizes[1] < sizes[0]
                       && sizes[2] > 0 && sizes[2] <= 256 && sizes[3] > 0 && sizes[3] <= 1024;
    if (!sound) return false;
    probes.faces = sizes[1];
    probes.least_db = limits[0];
    probes.least_stress_db = limits[1];
    for (int part = 0; part < 2; part++) {
        const int side = sizes[2 + part];
        for (int i = 0; i < sizes[0]; i++) {
            Image image{side, std::vector<uint8_t>(size_t(side) * side * 3)};
            if (!file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size()))
                return false;
            (part == 0 ? probes.lr : probes.sr).push_back(std::move(image));
        }
    }
    return true;
}

// The output is not clipped by the network: it is here, and rounded.
bool upscale(const ncnn::Net& net, const Image& lr, int side, Image& sr) {
    ncnn::Mat in(lr.side, lr.side, 3);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < lr.side * lr.side; i++)
            static_cast<float*>(in.channel(c))[i] = lr.pixels[size_t(i) * 3 + c] / 255.0f;
    ncnn::Extractor extractor = net.create_extractor();
    ncnn::Mat out;
    if (extractor.input("lr", in) != 0 || extractor.extract("sr", out) != 0) return false;
    if (out.w != side || out.h != side || out.c != 3) return false;
    sr = {side, std::vector<uint8_t>(size_t(side) * side * 3)};
    for (int c = 0; c < 3; c++) {
        const float* values = out.channel(c);
        for (int i = 0; i < side * side; i++) {
            if (!std::isfinite(values[i])) return false;
            const float level = std::min(std::max(values[i], 0.0f), 1.0f) * 255.0f;
            sr.pixels[size_t(i) * 3 + c] = uint8_t(std::nearbyint(level));
        }
    }
    return true;
}

double luma(const uint8_t* rgb) {
    return 16 + (65.481 * rgb[0] + 128.553 * rgb[1] + 24.966 * rgb[2]) / 255;
}

double mean_squared_error(const Image& a, const Image& b) {
    double sum = 0;
    for (size_t i = 0; i < a.pixels.size(); i += 3) {
        const double difference = luma(&a.pixels[i]) - luma(&b.pixels[i]);
        sum += difference * difference;
    }
    return sum / (a.pixels.size() / 3);
}

double psnr_db(double error) {
    return error > 0 ? std::min(100.0, 10 * std::log10(255.0 * 255.0 / error)) : 100.0;
}

// Whether the network is as close to FP32 on this device as it was where it was made.
bool verify(const ncnn::Net& net, const Probes& probes) {
    double faces = 0, stress = 0;
    const int count = int(probes.lr.size());
    for (int i = 0; i < count; i++) {
        Image sr;
        if (!upscale(net, probes.lr[i], probes.sr[i].side, sr)) return false;
        (i < probes.faces ? faces : stress) += mean_squared_error(sr, probes.sr[i]);
    }
    const double faces_db = psnr_db(faces / probes.faces);
    const double stress_db = psnr_db(stress / (count - probes.faces));
    std::printf("%.1f dB to FP32 on faces, at least %.1f; %.1f on stress probes, at least %.1f\n",
                faces_db, probes.least_db, stress_db, probes.least_stress_db);
    return faces_db >= probes.least_db && stress_db >= probes.least_stress_db;
}

bool read_ppm(const char* path, int side, Image& image) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int width = 0, height = 0, levels = 0;
    file >> kind >> width >> height >> levels;
    if (kind != "P6" || width != side || height != side || levels != 255) return false;
    file.get();  // the one space before the pixels
    image = {side, std::vector<uint8_t>(size_t(side) * side * 3)};
    return bool(file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size()));
}

int fail(int status, const std::string& message) {
    std::fprintf(stderr, "error: %s\n", message.c_str());
    return status;
}
}  // namespace

int main(int count, char** given) {
    if (count != 4 && count != 6)
        return fail(2, "usage: upscale MODEL.param MODEL.bin probes.bin [face.ppm out.ppm]");
    ncnn::Net net;
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
    net.opt.use_bf16_storage = false;  // FP32 where it is not INT8, as it was proved
    if (net.load_param(given[1]) != 0 || net.load_model(given[2]) != 0)
        return fail(1, std::string(given[1]) + ": ncnn cannot open it");
    Probes probes;
    if (!read_probes(given[3], probes)) return fail(1, std::string(given[3]) + ": are no probes");
    if (!verify(net, probes)) return fail(3, "the network drifts from FP32 on this device");
    if (count == 4) return 0;
    Image lr, sr;
    if (!read_ppm(given[4], probes.lr[0].side, lr))
        return fail(1, std::string(given[4]) + ": expected a P6 image of "
                           + std::to_string(probes.lr[0].side) + " px each way");
    if (!upscale(net, lr, probes.sr[0].side, sr)) return fail(1, "ncnn cannot run the network");
    std::ofstream file(given[5], std::ios::binary);
    file << "P6\n" << sr.side << " " << sr.side << "\n255\n";
    file.write(reinterpret_cast<const char*>(sr.pixels.data()), sr.pixels.size());
    return file.flush() ? 0 : fail(1, std::string(given[5]) + ": cannot be written");
}
