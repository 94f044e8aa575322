/* Frames on the line: COBS, CRC-32, little-endian fields. See PROTOCOL.md. */
#ifndef EDGEQ_AGENT_WIRE_H
#define EDGEQ_AGENT_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#define EDGEQ_HEADER_BYTES 12u
#define EDGEQ_CRC_BYTES    4u

/* CRC-32/ISO-HDLC (zlib's): start with EDGEQ_CRC_START, complement the end. */
#define EDGEQ_CRC_START 0xFFFFFFFFu
uint32_t edgeq_crc32(uint32_t crc, const uint8_t *bytes, uint32_t length);

/* Decodes a frame byte by byte into `buffer`; checks the CRC on the way. */
typedef struct {
    uint8_t *buffer;
    uint32_t capacity;
    uint32_t length; /* decoded so far; stops counting at capacity */
    uint32_t crc;
    uint8_t code;      /* COBS block's code, 0 before the first */
    uint8_t remaining; /* bytes left in the block */
    bool too_long;
} edgeq_decoder_t;

typedef enum {
    EDGEQ_FRAME_NONE,    /* not complete yet, or empty */
    EDGEQ_FRAME_WHOLE,   /* buffer[0 .. length - EDGEQ_CRC_BYTES) is header and payload */
    EDGEQ_FRAME_CORRUPT, /* not COBS, checksum wrong, or shorter than a header */
    EDGEQ_FRAME_TOO_LONG /* longer than the buffer */
} edgeq_frame_t;

void edgeq_decoder_init(edgeq_decoder_t *decoder, uint8_t *buffer, uint32_t capacity);

/* After any result but NONE the next byte begins a new frame; `length` and the buffer are valid until then. */
edgeq_frame_t edgeq_decode(edgeq_decoder_t *decoder, uint8_t byte);

/* Encodes a frame as it is written, in blocks of at most 255 bytes. */
typedef struct {
    void (*write)(const uint8_t *bytes, uint32_t length);
    uint32_t crc;
    uint8_t block[255]; /* [0] is the block's code */
    uint8_t count;      /* bytes behind the code */
    bool after_full;    /* the last block was full: an empty one behind it is left out */
} edgeq_encoder_t;

void edgeq_encode_begin(edgeq_encoder_t *encoder);
void edgeq_encode(edgeq_encoder_t *encoder, const uint8_t *bytes, uint32_t length);
void edgeq_encode_end(edgeq_encoder_t *encoder); /* appends the CRC and the closing 0 */

static inline uint16_t edgeq_get_u16(const uint8_t *at) {
    return (uint16_t)(at[0] | (uint16_t)(at[1] << 8));
}

static inline uint32_t edgeq_get_u32(const uint8_t *at) {
    return (uint32_t)at[0] | ((uint32_t)at[1] << 8) | ((uint32_t)at[2] << 16) | ((uint32_t)at[3] << 24);
}

static inline void edgeq_put_u16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void edgeq_put_u32(uint8_t *at, uint32_t value) {
    edgeq_put_u16(at, value & 0xFFFFu);
    edgeq_put_u16(at + 2, value >> 16);
}

#endif
