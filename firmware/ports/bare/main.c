#include "agent.h"

static edgeq_agent_t agent;

int main(void) {
    edgeq_agent_start(&agent, &edgeq_model);
    for (;;) {
        edgeq_agent_poll(&agent);
    }
}
