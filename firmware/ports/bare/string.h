/* <string.h> for ports without a C library: what memory.c has. */
#ifndef EDGEQ_BARE_STRING_H
#define EDGEQ_BARE_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *left, const void *right, size_t length);
size_t strlen(const char *text);

#endif
