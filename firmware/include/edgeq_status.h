/* What EdgeQ's functions return. Every bundle carries this file; including it twice is harmless. */
#ifndef EDGEQ_STATUS_H
#define EDGEQ_STATUS_H

typedef enum {
    EDGEQ_OK = 0,
    EDGEQ_NO_ARENA = -1,        /* the arena is NULL */
    EDGEQ_ARENA_MISALIGNED = -2 /* the arena is not aligned as <MODEL>_ARENA_ALIGN says */
} edgeq_status;

#endif
