/* The command I2C: a register of a sensor on the board's bus; and the sample that RUN takes. */
#include "internal.h"

enum { MOST_BYTES = 32, LOWEST_ADDRESS = 0x08, HIGHEST_ADDRESS = 0x77 };

/* For ports without a bus. */
__attribute__((weak)) uint32_t edgeq_port_i2c(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in,
                                              uint32_t in_bytes) {
    (void)address;
    (void)out;
    (void)out_bytes;
    (void)in;
    (void)in_bytes;
    return EDGEQ_I2C_STUCK;
}

uint8_t edgeq_i2c_check(const edgeq_agent_t *agent, uint8_t address) {
    if ((agent->port.capabilities & EDGEQ_CAN_I2C) == 0) {
        return STATUS_NOT_SUPPORTED;
    }
    return address < LOWEST_ADDRESS || address > HIGHEST_ADDRESS ? STATUS_BAD_REQUEST : STATUS_OK;
}

void edgeq_i2c(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    uint8_t in[MOST_BYTES];
    if (length < 2 || length > 2u + MOST_BYTES || payload[1] > MOST_BYTES || length + payload[1] == 2u) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        return;
    }
    const uint8_t refused = edgeq_i2c_check(agent, payload[0]);
    if (refused != STATUS_OK) {
        edgeq_reply_status(agent, refused);
        return;
    }
    const uint32_t failure = edgeq_port_i2c(payload[0], payload + 2, length - 2u, in, payload[1]);
    if (failure != EDGEQ_I2C_OK) {
        edgeq_reply_value(agent, STATUS_I2C_FAILED, failure);
        return;
    }
    edgeq_reply_begin(agent, STATUS_OK, payload[1]);
    edgeq_reply_bytes(agent, in, payload[1]);
    edgeq_reply_end(agent);
}
