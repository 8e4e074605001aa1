// Where an HTTP answer ends, told from its bytes alone. In doubt: at the end of the file.
#include "probe.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEAD, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, TO_EOF, DONE };

static void status_line(struct answer *a) {
    if (strncmp(a->line, "HTTP/1.", 7) == 0 && strlen(a->line) >= 12) a->status = atoi(a->line + 9);
    else a->phase = TO_EOF;
}

static void head_done(struct answer *a) {
    if (a->status >= 100 && a->status < 200) a->status = 0;   // the answer proper follows
    else if (a->chunked) a->phase = CHUNK_SIZE;
    else if (a->status == 204 || a->status == 304 || (a->sized && a->left == 0)) a->phase = DONE;
    else a->phase = a->sized ? BODY : TO_EOF;
}

static void head_line(struct answer *a) {
    if (!a->n) {
        if (a->status) head_done(a);
    } else if (!a->status) {
        status_line(a);
    } else if (strncasecmp(a->line, "content-length:", 15) == 0) {
        a->left = strtoll(a->line + 15, NULL, 10);
        a->sized = a->left >= 0;
    } else if (strncasecmp(a->line, "transfer-encoding:", 18) == 0) {
        a->chunked = strcasestr(a->line, "chunked") != NULL;
    }
}

static void size_line(struct answer *a) {
    char *end;
    a->left = strtoll(a->line, &end, 16);
    if (end == a->line || a->left < 0 || a->line[0] == '-') a->phase = TO_EOF;
    else a->phase = a->left ? CHUNK_DATA : TRAILER;
}

static void whole_line(struct answer *a) {
    if (a->n && a->line[a->n - 1] == '\r') a->n--;
    a->line[a->n] = 0;
    switch (a->phase) {
    case HEAD: head_line(a); break;
    case CHUNK_SIZE: size_line(a); break;
    case CHUNK_END: a->phase = a->n ? TO_EOF : CHUNK_SIZE; break;
    default: if (!a->n) a->phase = DONE;
    }
    a->n = 0;
}

bool answer_feed(struct answer *a, const char *p, size_t n) {
    while (n && a->phase != DONE && a->phase != TO_EOF) {
        size_t k = 1;
        if (a->phase == BODY || a->phase == CHUNK_DATA) {
            k = (int64_t)n < a->left ? n : (size_t)a->left;
            a->left -= (int64_t)k;
            if (!a->left) a->phase = a->phase == BODY ? DONE : CHUNK_END;
        } else if (*p == '\n') {
            whole_line(a);
        } else if (a->n < sizeof a->line - 1) {
            a->line[a->n++] = *p;   // of a longer line the head is enough
        }
        p += k;
        n -= k;
    }
    return a->phase == DONE;
}

const char *answer_eof(const struct answer *a) {
    if (a->phase == TO_EOF || a->phase == DONE) return "";
    return a->phase == HEAD && !a->status && !a->n ? "empty" : "truncated";
}
