#include "wire.h"

/* Register value after a message and its own CRC, before the final complement. */
#define CRC_RESIDUE 0xDEBB20E3u

uint32_t edgeq_crc32(uint32_t crc, const uint8_t *bytes, uint32_t length) {
    /* table[n] = n shifted through the reflected polynomial 0xEDB88320 by four bits */
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    for (uint32_t i = 0; i < length; ++i) {
        crc ^= bytes[i];
        crc = table[crc & 15u] ^ (crc >> 4);
        crc = table[crc & 15u] ^ (crc >> 4);
    }
    return crc;
}

static void decoder_restart(edgeq_decoder_t *decoder) {
    decoder->length = 0;
    decoder->crc = EDGEQ_CRC_START;
    decoder->code = 0;
    decoder->remaining = 0;
    decoder->too_long = false;
}

void edgeq_decoder_init(edgeq_decoder_t *decoder, uint8_t *buffer, uint32_t capacity) {
    decoder->buffer = buffer;
    decoder->capacity = capacity;
    decoder_restart(decoder);
}

static void decoder_put(edgeq_decoder_t *decoder, uint8_t byte) {
    if (decoder->length == decoder->capacity) {
        decoder->too_long = true;
        return;
    }
    decoder->buffer[decoder->length++] = byte;
    decoder->crc = edgeq_crc32(decoder->crc, &byte, 1);
}

static edgeq_frame_t decoder_verdict(const edgeq_decoder_t *decoder) {
    if (decoder->code == 0) {
        return EDGEQ_FRAME_NONE;
    }
    if (decoder->too_long) {
        return EDGEQ_FRAME_TOO_LONG;
    }
    if (decoder->remaining != 0 || decoder->crc != CRC_RESIDUE ||
        decoder->length < EDGEQ_HEADER_BYTES + EDGEQ_CRC_BYTES) {
        return EDGEQ_FRAME_CORRUPT;
    }
    return EDGEQ_FRAME_WHOLE;
}

edgeq_frame_t edgeq_decode(edgeq_decoder_t *decoder, uint8_t byte) {
    if (byte == 0) {
        const edgeq_frame_t verdict = decoder_verdict(decoder);
        const uint32_t length = decoder->length;
        decoder_restart(decoder);
        decoder->length = length;
        return verdict;
    }
    if (decoder->code == 0) {
        decoder->length = 0;
    }
    if (decoder->remaining != 0) {
        decoder->remaining--;
        decoder_put(decoder, byte);
        return EDGEQ_FRAME_NONE;
    }
    if (decoder->code != 0 && decoder->code != 255) {
        decoder_put(decoder, 0);
    }
    decoder->code = byte;
    decoder->remaining = (uint8_t)(byte - 1u);
    return EDGEQ_FRAME_NONE;
}

static void encoder_flush(edgeq_encoder_t *encoder) {
    encoder->block[0] = (uint8_t)(encoder->count + 1u);
    encoder->write(encoder->block, encoder->count + 1u);
    encoder->count = 0;
}

static void encoder_put(edgeq_encoder_t *encoder, uint8_t byte) {
    encoder->after_full = false;
    if (byte == 0) {
        encoder_flush(encoder);
        return;
    }
    encoder->block[1u + encoder->count++] = byte;
    if (encoder->count == 254) {
        encoder_flush(encoder);
        encoder->after_full = true;
    }
}

void edgeq_encode_begin(edgeq_encoder_t *encoder) {
    encoder->crc = EDGEQ_CRC_START;
    encoder->count = 0;
    encoder->after_full = false;
}

void edgeq_encode(edgeq_encoder_t *encoder, const uint8_t *bytes, uint32_t length) {
    encoder->crc = edgeq_crc32(encoder->crc, bytes, length);
    for (uint32_t i = 0; i < length; ++i) {
        encoder_put(encoder, bytes[i]);
    }
}

void edgeq_encode_end(edgeq_encoder_t *encoder) {
    static const uint8_t end = 0;
    uint8_t crc[EDGEQ_CRC_BYTES];
    edgeq_put_u32(crc, ~encoder->crc);
    for (uint32_t i = 0; i < EDGEQ_CRC_BYTES; ++i) {
        encoder_put(encoder, crc[i]);
    }
    if (!encoder->after_full) {
        encoder_flush(encoder);
    }
    encoder->write(&end, 1);
}
