package com.example.faceupscaler

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.rint
import org.tensorflow.lite.Interpreter

/**
 * Upscales faces with LiteRT, after this device has proved on the probes that it computes the same.
 *
 * Put int8.tflite and int8.probes.bin into src/main/assets and com.google.ai.edge.litert:litert into the
 * dependencies (the package keeps the name org.tensorflow.lite). Not compiled where it was written:
 * no Android SDK was there.
 *
 *     FaceUpscaler(context).use { upscaler -> imageView.setImageBitmap(upscaler.upscale(face)) }
 *
 * Create it and call it off the main thread. One thread at a time may call it.
 */
class FaceUpscaler(context: Context, model: String = "int8.tflite", threads: Int = 2) :
    AutoCloseable {

    /** The model computes something else on this device than where it was made. */
    class DriftException(message: String) : Exception(message)

    /** Fidelity to FP32 in dB PSNR-Y on this device, on the faces and the stress probes. */
    val fidelityDb: Double
    val stressFidelityDb: Double

    private val interpreter: Interpreter
    private val lrSide: Int
    private val srSide: Int
    private val input: ByteBuffer
    private val output: ByteBuffer

    init {
        val probesName = "${model.substringBeforeLast('.')}.probes.bin"
        val probes = Probes(direct(context.assets.open(probesName).use { it.readBytes() }))
        lrSide = probes.lrSide
        srSide = probes.srSide
        val content = direct(context.assets.open(model).use { it.readBytes() })
        interpreter = Interpreter(content, Interpreter.Options().setNumThreads(threads))
        input = buffer(lrSide)
        output = buffer(srSide)
        var faces = 0.0
        var stress = 0.0
        for (i in 0 until probes.count) {
            val error = meanSquaredError(run(probes.lr(i)), probes.sr(i))
            if (i < probes.faces) faces += error else stress += error
        }
        fidelityDb = psnrDb(faces / probes.faces)
        stressFidelityDb = psnrDb(stress / (probes.count - probes.faces))
        if (!(fidelityDb >= probes.leastDb && stressFidelityDb >= probes.leastStressDb)) {
            interpreter.close()
            throw DriftException(
                "$model drifts from FP32 on this device: $fidelityDb dB on faces, expected at least" +
                    " ${probes.leastDb}; $stressFidelityDb on stress probes, ${probes.leastStressDb}"
            )
        }
    }

    /** Upscale a face, a square crop of any size, to srSide x srSide. */
    fun upscale(face: Bitmap): Bitmap {
        val small = Bitmap.createScaledBitmap(face, lrSide, lrSide, true)
        val colors = IntArray(lrSide * lrSide)
        small.getPixels(colors, 0, lrSide, 0, 0, lrSide, lrSide)
        val rgb = ByteArray(colors.size * 3)
        colors.forEachIndexed { i, color ->
            for (c in 0..2) rgb[3 * i + c] = (color shr (16 - 8 * c)).toByte()
        }
        val sr = run(rgb)
        val made = IntArray(srSide * srSide) { i ->
            (0..2).fold(0xFF) { color, c -> (color shl 8) or (sr[3 * i + c].toInt() and 0xFF) }
        }
        return Bitmap.createBitmap(made, srSide, srSide, Bitmap.Config.ARGB_8888)
    }

    override fun close() = interpreter.close()

    /** RGB bytes of lrSide x lrSide to those of srSide x srSide: scaled, clipped, rounded here. */
    private fun run(rgb: ByteArray): ByteArray {
        input.rewind()
        for (level in rgb) input.putFloat((level.toInt() and 0xFF) / 255f)
        input.rewind()
        output.rewind()
        interpreter.run(input, output)
        output.rewind()
        return ByteArray(srSide * srSide * 3) {
            val value = output.getFloat()
            if (!value.isFinite()) throw DriftException("the model gives numbers that are not finite")
            rint(min(max(value, 0f), 1f) * 255f).toInt().toByte()
        }
    }

    private fun meanSquaredError(a: ByteArray, b: ByteArray): Double {
        var sum = 0.0
        for (i in a.indices step 3) sum += (luma(a, i) - luma(b, i)).let { it * it }
        return sum / (a.size / 3)
    }

    private fun luma(rgb: ByteArray, i: Int): Double {
        fun level(c: Int) = (rgb[i + c].toInt() and 0xFF).toDouble()
        return 16 + (65.481 * level(0) + 128.553 * level(1) + 24.966 * level(2)) / 255
    }

    private fun psnrDb(error: Double) =
        if (error > 0) min(100.0, 10 * log10(255.0 * 255.0 / error)) else 100.0

    private fun buffer(side: Int): ByteBuffer =
        ByteBuffer.allocateDirect(side * side * 3 * 4).order(ByteOrder.nativeOrder())

    private fun direct(bytes: ByteArray): ByteBuffer =
        ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes).also { it.rewind() }

    /** "AMNPROB1", sizes and limits, then all lr and all sr images. */
    private class Probes(private val bytes: ByteBuffer) {
        init {
            bytes.order(ByteOrder.LITTLE_ENDIAN)
            val magic = ByteArray(8).also { bytes.get(it) }
            require(String(magic, Charsets.US_ASCII) == "AMNPROB1") { "the file holds no probes" }
        }
        val count = bytes.getInt()
        val faces = bytes.getInt()
        val lrSide = bytes.getInt()
        val srSide = bytes.getInt()
        val leastDb = bytes.getFloat().toDouble()
        val leastStressDb = bytes.getFloat().toDouble()
        private val start = bytes.position()

        fun lr(i: Int) = image(start + i * lrSide * lrSide * 3, lrSide)
        fun sr(i: Int) = image(start + (count * lrSide * lrSide + i * srSide * srSide) * 3, srSide)
        private fun image(at: Int, side: Int): ByteArray {
            bytes.position(at)
            return ByteArray(side * side * 3).also { bytes.get(it) }
        }
    }
}
