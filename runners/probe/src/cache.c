// The command `cache`: what the push cache holds, and how it changes. docs/probe.md.
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: meltprobe cache DIR look [--full] SHA... | put SHA BYTES OFFSET CAP_BYTES RESERVE_BYTES | tree DIGEST NAME=SHA... | list | drop SHA...|--all\n";

static void key(struct sb *b, const char *name) {
    char last = b->n ? b->p[b->n - 1] : '{';
    sb_text(b, last == '{' ? "\"" : ",\"");
    sb_text(b, name);
    sb_text(b, "\":");
}

static void number(struct sb *b, const char *name, int64_t value) {
    key(b, name);
    sb_int(b, value);
}

static void text(struct sb *b, const char *name, const char *value) {
    key(b, name);
    sb_json(b, value, strlen(value));
}

static int64_t free_bytes(const struct statvfs *v) { return (int64_t)v->f_bavail * (int64_t)v->f_frsize; }

// The disk and the sum, and the end of the line.
static int finish(struct sb *b) {
    struct statvfs v;
    if (fstatvfs(CACHE.blobs, &v) != 0) return cache_fail(EXIT_WRITE, CACHE.dir, strerror(errno));
    sb_text(b, "}");
    key(b, "disk");
    sb_text(b, "{");
    number(b, "free_bytes", free_bytes(&v));
    number(b, "total_bytes", (int64_t)v.f_blocks * (int64_t)v.f_frsize);
    sb_text(b, "}");
    number(b, "used_bytes", ENTRIES.bytes);
    sb_text(b, "}\n");
    return write_all(1, b->p, b->n) ? EXIT_WRITE : 0;
}

// Under the lock, and only the file that was looked at: another may have pushed it anew by now.
static int remove_damaged(const char *sha, const struct stat *seen) {
    struct stat st;
    int code = cache_lock();
    if (code) return code;
    int err = cache_scan();
    bool same = fstatat(CACHE.blobs, sha, &st, AT_SYMLINK_NOFOLLOW) == 0 && (!seen->st_ino || st.st_ino == seen->st_ino);
    if (!err && same) err = blob_remove(sha);
    cache_unlock();
    return err ? cache_fail(EXIT_WRITE, sha, strerror(err)) : 0;
}

static int look(char **shas, int n, bool full) {
    struct sb b = {0};
    sb_text(&b, "{\"blobs\":{");
    int err = cache_scan();
    if (err) return cache_fail(EXIT_WRITE, CACHE.dir, strerror(err));
    int64_t used = cache_now();
    for (int i = 0; i < n; i++) {
        struct stat st;
        enum blob state = blob_check(shas[i], full, &st);
        int64_t bytes = st.st_size;
        const char *word = state == BLOB_WHOLE ? "whole" : state == BLOB_DAMAGED ? "damaged" : "absent";
        if (state == BLOB_WHOLE) blob_record(shas[i], &st, used);
        int code = state == BLOB_DAMAGED ? remove_damaged(shas[i], &st) : 0;
        if (code) return code;
        for (int j = 0; state == BLOB_ABSENT && j < ENTRIES.n; j++)
            if (ENTRIES.at[j].part && ENTRIES.at[j].bytes && strcmp(ENTRIES.at[j].sha, shas[i]) == 0) {
                word = "partial";
                bytes = ENTRIES.at[j].bytes;
            }
        key(&b, shas[i]);
        sb_text(&b, "{");
        text(&b, "state", word);
        number(&b, "bytes", bytes);
        sb_text(&b, "}");
    }
    return finish(&b);
}

static bool has_blob(const char *sha) {
    for (int i = 0; i < ENTRIES.n; i++)
        if (!ENTRIES.at[i].part && strcmp(ENTRIES.at[i].sha, sha) == 0) return true;
    return false;
}

static int list(void) {
    struct sb b = {0};
    sb_text(&b, "{\"blobs\":{");
    int code = cache_lock();   // else a push could find its partial held by the question whether it is
    if (code) return code;
    int err = cache_scan();
    if (err) return cache_fail(EXIT_WRITE, CACHE.dir, strerror(err));
    int64_t now = clock_ns(CLOCK_REALTIME);
    for (int i = 0; i < ENTRIES.n; i++) {
        const struct entry *e = &ENTRIES.at[i];
        struct stat st;
        if (e->part && has_blob(e->sha)) continue;
        key(&b, e->sha);
        sb_text(&b, "{");
        text(&b, "state", e->part ? "partial" : blob_known(e->sha, &st) == BLOB_WHOLE ? "whole" : "unchecked");
        number(&b, "bytes", e->bytes + e->copies);
        number(&b, "idle_s", e->used <= 0 ? -1 : now > e->used ? (now - e->used) / NS_S : 0);
        key(&b, "in_use");
        sb_text(&b, in_use(e) ? "true" : "false");
        key(&b, "names");
        sb_text(&b, "[");
        bool first = true;
        for (int j = 0; j < LEAVES.n; j++) {
            bool again = strcmp(LEAVES.at[j].sha, e->sha) != 0;
            for (int k = 0; k < j && !again; k++)
                again = strcmp(LEAVES.at[k].sha, e->sha) == 0 && strcmp(LEAVES.at[k].name, LEAVES.at[j].name) == 0;
            if (again) continue;
            if (!first) sb_text(&b, ",");
            first = false;
            sb_json(&b, LEAVES.at[j].name, strlen(LEAVES.at[j].name));
        }
        sb_text(&b, "]}");
    }
    return finish(&b);
}

// shas NULL: all.
static int drop(char **shas, int n) {
    struct sb gone = {0}, kept = {0};
    int64_t freed = 0;
    int code = cache_lock();
    if (code) return code;
    int err = cache_scan();
    for (int i = 0; i < ENTRIES.n && !err; i++) {
        const struct entry *e = &ENTRIES.at[i];
        char name[SHA_TEXT + 8];
        bool wanted = shas == NULL;
        for (int j = 0; j < n && !wanted; j++) wanted = strcmp(shas[j], e->sha) == 0;
        if (!wanted) continue;
        bool stays = in_use(e);
        snprintf(name, sizeof name, "%s.part", e->sha);
        if (!stays) err = e->part ? (unlinkat(CACHE.blobs, name, 0) != 0 ? errno : 0) : blob_remove(e->sha);
        if (!stays && !err) freed += e->bytes + e->copies;
        struct sb *b = stays ? &kept : &gone;
        sb_text(b, b->n ? "," : "");
        sb_json(b, e->sha, 64);
    }
    cache_unlock();
    if (err) return cache_fail(EXIT_WRITE, CACHE.dir, strerror(err));
    struct sb b = {0};
    sb_text(&b, "{\"dropped\":[");
    sb_add(&b, gone.p, gone.n);
    sb_text(&b, "],\"in_use\":[");
    sb_add(&b, kept.p, kept.n);
    sb_text(&b, "]");
    number(&b, "freed_bytes", freed);
    sb_text(&b, "}\n");
    if (write_all(1, b.p, b.n)) return EXIT_WRITE;
    return kept.n ? EXIT_BUSY : 0;
}

static int tree(const char *digest, char **words, int n) {
    int code = tree_put(digest, words, n);
    if (code) return code;
    struct sb path = {0}, b = {0};
    sb_text(&path, CACHE.dir);
    sb_text(&path, "/trees/");
    sb_text(&path, digest);
    sb_text(&b, "{");
    text(&b, "path", path.p);
    sb_text(&b, "}\n");
    return write_all(1, b.p, b.n) ? EXIT_WRITE : 0;
}

static bool all_are(char **words, int n, bool (*good)(const char *)) {
    for (int i = 0; i < n; i++)
        if (!good(words[i])) return false;
    return n > 0;
}

static bool twice(char **words, int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (strncmp(words[i], words[j], strcspn(words[j], "=") + 1) == 0) return true;
    return false;
}

static bool sizes_of(char **words, int64_t sizes[4]) {
    for (int i = 0; i < 4; i++)
        if ((sizes[i] = word_int(words[i])) < 0) return false;
    return sizes[1] <= sizes[0];
}

// argv: meltprobe cache DIR VERB ...; every word is checked before the folder is touched.
int cmd_cache(int argc, char **argv) {
    static const char *const verbs[] = {"look", "put", "tree", "drop", "list"};
    enum { LOOK, PUT, TREE, DROP, LIST, NONE } verb = NONE;
    char **words = argv + 4;
    int n = argc - 4;
    int64_t sizes[4];
    for (int i = LOOK; argc > 3 && i < NONE; i++)
        if (strcmp(argv[3], verbs[i]) == 0) verb = i;
    bool flag = n > 0 && strcmp(words[0], verb == LOOK ? "--full" : "--all") == 0;
    bool good = verb == LOOK ? all_are(words + flag, n - flag, is_sha)
              : verb == PUT  ? n == 5 && is_sha(words[0]) && sizes_of(words + 1, sizes)
              : verb == TREE ? n > 1 && n <= TREE_FILES && is_sha(words[0]) && all_are(words + 1, n - 1, tree_word) && !twice(words + 1, n - 1)
              : verb == DROP ? (flag && n == 1) || all_are(words, n, is_sha)
                             : verb == LIST && n == 0;
    if (!good) {
        dprintf(2, "%s", USAGE);
        return EXIT_USAGE;
    }
    for (size_t end = strlen(argv[2]); end > 1 && argv[2][end - 1] == '/';) argv[2][--end] = 0;   // its parent is looked for
    int code = cache_open(argv[2]);
    if (code) return code;
    switch (verb) {
    case LOOK: return look(words + flag, n - flag, flag);
    case PUT: return cache_put(words[0], sizes[0], sizes[1], sizes[2], sizes[3]);
    case TREE: return tree(words[0], words + 1, n - 1);
    case DROP: return drop(flag ? NULL : words, n);
    default: return list();
    }
}
