// printf in 1 kB: the C library's brings floating point with it, 18 kB of it where numbers of 128 bits are made by hand.
#include "probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct out { char *at; size_t cap, n; };   // n: all there was, also what found no room

static void add(struct out *o, const char *text, size_t n) {
    for (; n; n--, text++, o->n++)
        if (o->n + 1 < o->cap) o->at[o->n] = *text;
}

static void add_number(struct out *o, uint64_t v, unsigned base, bool minus, char fill, int width) {
    char text[24];
    int n = 0;
    do text[n++] = "0123456789abcdef"[v % base];
    while ((v /= base));
    for (; n < width && n < 23; n++) text[n] = fill;
    if (minus) text[n++] = '-';
    while (n) add(o, &text[--n], 1);
}

// %s %c %d %u %x %%, with l, ll, z, a width of numbers (0 fills), and %.*s. Anything else aborts: no test would pass.
static size_t put(char *out, size_t cap, const char *form, va_list ap) {
    struct out o = {out, cap, 0};
    for (; *form; form++) {
        if (*form != '%') {
            add(&o, form, 1);
            continue;
        }
        char fill = form[1] == '0' ? '0' : ' ', c;
        int width = 0, bound = -1, longs = 0;
        while (*++form >= '0' && *form <= '9') width = width * 10 + (*form - '0');
        if (form[0] == '.' && form[1] == '*') bound = va_arg(ap, int), form += 2;
        for (; *form == 'l' || *form == 'z'; form++) longs += *form == 'z' ? (int)(sizeof(size_t) / sizeof(long)) : 1;
        if (*form == 's') {
            const char *text = va_arg(ap, const char *);
            add(&o, text, bound < 0 ? strlen(text) : strnlen(text, (size_t)bound));
        } else if (*form == 'd') {
            int64_t v = longs > 1 ? va_arg(ap, long long) : longs ? va_arg(ap, long) : va_arg(ap, int);
            add_number(&o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0, fill, width);
        } else if (*form == 'u' || *form == 'x') {
            uint64_t v = longs > 1 ? va_arg(ap, unsigned long long) : longs ? va_arg(ap, unsigned long) : va_arg(ap, unsigned);
            add_number(&o, v, *form == 'x' ? 16 : 10, false, fill, width);
        } else if (*form == 'c' || *form == '%') {
            c = *form == 'c' ? (char)va_arg(ap, int) : '%';
            add(&o, &c, 1);
        } else {
            abort();
        }
    }
    if (cap) out[o.n < cap ? o.n : cap - 1] = 0;
    return o.n;
}

int snprintf(char *out, size_t cap, const char *form, ...) {
    va_list ap;
    va_start(ap, form);
    size_t n = put(out, cap, form, ap);
    va_end(ap);
    return (int)n;
}

int dprintf(int fd, const char *form, ...) {
    va_list ap, again;
    va_start(ap, form);
    va_copy(again, ap);
    size_t n = put(NULL, 0, form, again);
    char *text = xrealloc(NULL, n + 1);
    put(text, n + 1, form, ap);
    va_end(again);
    va_end(ap);
    int err = write_all(fd, text, n);
    free(text);
    return err ? -1 : (int)n;
}
