// The push cache: what sha256.c, blobs.c, trees.c, cache.c and put.c share. docs/probe.md says what it is.
#ifndef CACHE_H
#define CACHE_H

#include "probe.h"

#include <sys/stat.h>

#define SHA_TEXT 65            // 64 hexadecimal digits and a NUL

// ---- sha256.c
struct sha256 { uint32_t h[8]; uint64_t bytes; uint8_t block[64]; };
void sha256_start(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t n);
void sha256_end(struct sha256 *s, char hex[SHA_TEXT]);
int sha256_fd(struct sha256 *s, int fd, int64_t n);   // what fd gives from where it stands, n bytes at most; 0 or an errno

// ---- blobs.c: files that are named by what they hold
#define EXIT_DAMAGED 65
#define EXIT_ABSENT 66
#define EXIT_CUT 74
static inline int64_t ns_of(struct timespec t) { return t.tv_sec * NS_S + t.tv_nsec; }
enum blob { BLOB_ABSENT, BLOB_WHOLE, BLOB_DAMAGED, BLOB_UNCHECKED };
extern struct cache { const char *dir; int blobs, trees, lock; } CACHE;   // of this process
int cache_open(const char *dir);           // makes what is not there; an exit status, told on stderr
int cache_lock(void);                      // the same; held for moments only, never while a file is received or hashed
void cache_unlock(void);
int cache_fail(int code, const char *what, const char *why);
bool is_sha(const char *text);             // 64 digits and the end
int open_plain(int at, const char *name, int flags, struct stat *st);   // a regular file, through no link; -1 with errno
enum blob blob_check(const char *sha, bool full, struct stat *st);      // hashes where no record of that very file stands
enum blob blob_known(const char *sha, struct stat *st);                 // the same, but BLOB_UNCHECKED instead of hashing
int64_t blob_used(const char *sha);        // when it was last, in ns; 0: nobody knows
void blob_record(const char *sha, const struct stat *of, int64_t used);   // it is what its name says; of NULL: as it is now
int blob_remove(const char *sha);          // with the trees it is in; 0 or an errno

// What there is, least recently used first; a partial that nobody went on with for an hour stands before all.
struct entry { char sha[SHA_TEXT]; bool part, go; int64_t bytes, copies, used; };
extern struct entries { struct entry *at; int n; int64_t bytes, newest; } ENTRIES;
int cache_scan(void);                      // 0 or an errno
int64_t cache_now(void);                   // of the last scan: later than every use, also where the clock was set back
bool in_use(const struct entry *e);        // by a running job of the folder beside, or by a put

// ---- trees.c: blobs under names, in a folder for a program and its libraries
#define TREE_FILES 1000
struct leaf { char digest[SHA_TEXT], sha[SHA_TEXT], name[132]; int64_t copied; };
extern struct leaves { struct leaf *at; int n; } LEAVES;
void trees_sweep(void);                    // what a kill left half made; under the lock
int trees_scan(void);                      // 0 or an errno
int tree_remove(const char *digest);
int tree_put(const char *digest, char **words, int n);   // words: NAME=SHA; an exit status, told on stderr
bool tree_word(const char *word);          // NAME=SHA

// ---- put.c
int cache_put(const char *sha, int64_t bytes, int64_t offset, int64_t cap, int64_t reserve);

#endif
