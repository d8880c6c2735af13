import CoreGraphics
import CoreML
import Foundation

/// Upscales faces with Core ML, after this device has proved on the probes that it computes the same.
///
/// In an app: add int8.mlpackage (Xcode compiles it) and int8.probes.bin to the target, then
///     let upscaler = try FaceUpscaler(model: url, probes: probesURL)
/// main.swift checks a package on a Mac. Not compiled where it was written: no Mac was there.
/// iOS 17 or macOS 14, and newer.
final class FaceUpscaler {
    enum Failure: Error { case notProbes, notTheModel, drift(String) }

    let fidelityDb: Double  // PSNR-Y to FP32 on this device, on the faces
    let stressFidelityDb: Double  // and on the stress probes
    private let model: MLModel
    private let lrSide: Int
    private let srSide: Int

    /// `model`: a compiled model (.mlmodelc), or a package, which is compiled first.
    init(model url: URL, probes: URL, units: MLComputeUnits = .all) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        let compiled = url.pathExtension == "mlpackage" ? try MLModel.compileModel(at: url) : url
        let model = try MLModel(contentsOf: compiled, configuration: configuration)
        let probes = try Probes(Data(contentsOf: probes))
        var faces = 0.0
        var stress = 0.0
        for i in 0..<probes.count {
            let sr = try Self.run(model, probes.lr(i), probes.lrSide, probes.srSide)
            let error = Self.meanSquaredError(sr, probes.sr(i))
            if i < probes.faces { faces += error } else { stress += error }
        }
        fidelityDb = Self.psnrDb(faces / Double(probes.faces))
        stressFidelityDb = Self.psnrDb(stress / Double(probes.count - probes.faces))
        (self.model, lrSide, srSide) = (model, probes.lrSide, probes.srSide)
        guard fidelityDb >= probes.leastDb, stressFidelityDb >= probes.leastStressDb else {
            throw Failure.drift(
                "\(url.lastPathComponent) drifts from FP32 here: \(fidelityDb) dB on faces, at least"
                    + " \(probes.leastDb); \(stressFidelityDb) on stress probes, \(probes.leastStressDb)")
        }
    }

    /// Upscale a face, a square crop of any size.
    func upscale(_ face: CGImage) throws -> CGImage {
        let space = CGColorSpace(name: CGColorSpace.sRGB)!
        var rgba = [UInt8](repeating: 255, count: lrSide * lrSide * 4)
        let info = CGImageAlphaInfo.noneSkipLast.rawValue
        let context = CGContext(
            data: &rgba, width: lrSide, height: lrSide, bitsPerComponent: 8, bytesPerRow: lrSide * 4,
            space: space, bitmapInfo: info)!
        context.interpolationQuality = .high
        context.draw(face, in: CGRect(x: 0, y: 0, width: lrSide, height: lrSide))
        context.flush()
        let drawn = context.data!.assumingMemoryBound(to: UInt8.self)
        let rgb = (0..<lrSide * lrSide * 3).map { drawn[$0 / 3 * 4 + $0 % 3] }
        let sr = try Self.run(model, rgb, lrSide, srSide)
        let provider = CGDataProvider(data: Data(sr) as CFData)!
        return CGImage(
            width: srSide, height: srSide, bitsPerComponent: 8, bitsPerPixel: 24,
            bytesPerRow: srSide * 3, space: space,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider,
            decode: nil, shouldInterpolate: false, intent: .defaultIntent)!
    }

    /// RGB bytes to RGB bytes: scaled before, clipped and rounded after.
    private static func run(_ model: MLModel, _ rgb: [UInt8], _ side: Int, _ srSide: Int) throws
        -> [UInt8]
    {
        let shape = [1, 3, side, side] as [NSNumber]
        let lr = try MLMultiArray(shape: shape, dataType: .float32)
        let values = lr.dataPointer.assumingMemoryBound(to: Float.self)
        for i in 0..<side * side {
            for c in 0..<3 { values[c * side * side + i] = Float(rgb[3 * i + c]) / 255 }
        }
        let inputs = try MLDictionaryFeatureProvider(dictionary: ["lr": lr])
        guard let sr = try model.prediction(from: inputs).featureValue(for: "sr")?.multiArrayValue,
            sr.shape.map(\.intValue) == [1, 3, srSide, srSide]
        else { throw Failure.notTheModel }
        let strides = sr.strides.map(\.intValue)
        var pixels = [UInt8](repeating: 0, count: srSide * srSide * 3)
        try sr.withUnsafeBufferPointer(ofType: Float.self) { made in
            for y in 0..<srSide {
                for x in 0..<srSide {
                    for c in 0..<3 {
                        let value = made[c * strides[1] + y * strides[2] + x * strides[3]]
                        guard value.isFinite else { throw Failure.drift("numbers are not finite") }
                        let level = (min(max(value, 0), 1) * 255).rounded(.toNearestOrEven)
                        pixels[(y * srSide + x) * 3 + c] = UInt8(level)
                    }
                }
            }
        }
        return pixels
    }

    private static func meanSquaredError(_ a: [UInt8], _ b: [UInt8]) -> Double {
        func luma(_ rgb: [UInt8], _ i: Int) -> Double {
            16 + (65.481 * Double(rgb[i]) + 128.553 * Double(rgb[i + 1])
                + 24.966 * Double(rgb[i + 2])) / 255
        }
        let errors = stride(from: 0, to: a.count, by: 3).map { pow(luma(a, $0) - luma(b, $0), 2) }
        return errors.reduce(0, +) / Double(errors.count)
    }

    private static func psnrDb(_ error: Double) -> Double {
        error > 0 ? min(100, 10 * log10(255 * 255 / error)) : 100
    }

    /// "AMNPROB1", sizes and limits, then all lr and all sr images.
    private struct Probes {
        let count, faces, lrSide, srSide: Int
        let leastDb, leastStressDb: Double
        private let data: Data

        init(_ data: Data) throws {
            guard data.count > 32, data.prefix(8) == Data("AMNPROB1".utf8) else {
                throw Failure.notProbes
            }
            func word(_ i: Int) -> UInt32 {
                data[(8 + 4 * i)..<(12 + 4 * i)].reversed().reduce(0) { $0 << 8 | UInt32($1) }
            }
            (count, faces, lrSide, srSide) = (Int(word(0)), Int(word(1)), Int(word(2)), Int(word(3)))
            leastDb = Double(Float(bitPattern: word(4)))
            leastStressDb = Double(Float(bitPattern: word(5)))
            self.data = data
        }

        func lr(_ i: Int) -> [UInt8] { image(32 + i * lrSide * lrSide * 3, lrSide) }
        func sr(_ i: Int) -> [UInt8] {
            image(32 + (count * lrSide * lrSide + i * srSide * srSide) * 3, srSide)
        }
        private func image(_ at: Int, _ side: Int) -> [UInt8] { [UInt8](data[at..<at + side * side * 3]) }
    }
}
