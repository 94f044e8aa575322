/* The functions that compilers call by themselves, for ports without a C library. */
#include <stdint.h>
#include <string.h>

/* Else a compiler makes of the loop in memcpy a call of memcpy. */
#if defined(__clang__)
#define AS_WRITTEN __attribute__((no_builtin))
#else
#define AS_WRITTEN __attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif

/* Words that may alias any other type, as the bytes of an object do. */
typedef uint32_t __attribute__((may_alias)) word_t;

AS_WRITTEN void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    uint8_t *target = to;
    const uint8_t *source = from;
    if ((((uintptr_t)target | (uintptr_t)source) & 3u) == 0) {
        for (; length >= 16; length -= 16, target += 16, source += 16) {
            word_t *const t = (word_t *)target;
            const word_t *const s = (const word_t *)source;
            const uint32_t a = s[0], b = s[1], c = s[2], d = s[3];
            t[0] = a;
            t[1] = b;
            t[2] = c;
            t[3] = d;
        }
        for (; length >= 4; length -= 4, target += 4, source += 4) {
            *(word_t *)target = *(const word_t *)source;
        }
    }
    while (length-- != 0) {
        *target++ = *source++;
    }
    return to;
}

AS_WRITTEN void *memmove(void *to, const void *from, size_t length) {
    uint8_t *const target = to;
    const uint8_t *const source = from;
    if ((uintptr_t)target - (uintptr_t)source >= length) {
        return memcpy(to, from, length);
    }
    while (length-- != 0) {
        target[length] = source[length];
    }
    return to;
}

AS_WRITTEN void *memset(void *to, int value, size_t length) {
    uint8_t *target = to;
    const uint32_t pattern = (uint8_t)value * 0x01010101u;
    for (; length != 0 && ((uintptr_t)target & 3u) != 0; --length) {
        *target++ = (uint8_t)value;
    }
    for (; length >= 4; length -= 4, target += 4) {
        *(word_t *)target = pattern;
    }
    while (length-- != 0) {
        *target++ = (uint8_t)value;
    }
    return to;
}

AS_WRITTEN int memcmp(const void *left, const void *right, size_t length) {
    const uint8_t *l = left;
    const uint8_t *r = right;
    for (; length != 0; --length, ++l, ++r) {
        if (*l != *r) {
            return *l - *r;
        }
    }
    return 0;
}

AS_WRITTEN size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != 0) {
        ++length;
    }
    return length;
}
