// Check a package on a Mac:
//     swiftc -O FaceUpscaler.swift main.swift -o verify
//     ./verify int8.mlpackage int8.probes.bin
// It prints the fidelity to FP32 on each of the Mac's units, and exits with 3 if one drifts.

import CoreML
import Foundation

let given = CommandLine.arguments.dropFirst().map { URL(fileURLWithPath: $0) }
guard given.count == 2 else {
    print("usage: verify MODEL.mlpackage MODEL.probes.bin")
    exit(2)
}
let units: [(String, MLComputeUnits)] = [
    ("CPU", .cpuOnly), ("GPU", .cpuAndGPU), ("Neural Engine", .cpuAndNeuralEngine),
]
var status: Int32 = 0
for (name, unit) in units {
    do {
        let upscaler = try FaceUpscaler(model: given[0], probes: given[1], units: unit)
        print("\(name): \(upscaler.fidelityDb) dB on faces, \(upscaler.stressFidelityDb) on stress probes")
    } catch {
        print("\(name): \(error)")
        status = 3
    }
}
exit(status)
