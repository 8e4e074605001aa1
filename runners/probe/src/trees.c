// Folders of the push cache in which blobs have the names that a program and its libraries need.
#include "cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIST ".files"          // a line a file: SHA NAME and, of a copy, what it was when it was made
#define LIST_BYTES (1u << 20)
#define NESTED 8               // folders in folders that somebody else made

struct leaves LEAVES;

static int remove_all(int at, const char *name, int depth) {
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT) return 0;
    int fd = depth == NESTED ? -1 : openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) return errno;
    for (struct dirent *d; (d = readdir(dir));)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) remove_all(fd, d->d_name, depth + 1);
    closedir(dir);
    return unlinkat(at, name, AT_REMOVEDIR) != 0 ? errno : 0;
}

void trees_sweep(void) {
    remove_all(CACHE.trees, ".new", 0);
    remove_all(CACHE.trees, ".old", 0);
}

static int open_tree(const char *name) { return openat(CACHE.trees, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }

// What a tree lists, a NUL behind it; NULL where it has no list.
static char *list_of(int tree) {
    struct stat st;
    int fd = open_plain(tree, LIST, O_RDONLY, &st);
    if (fd < 0) return NULL;
    char *text = NULL;
    if (st.st_size < (off_t)LIST_BYTES) {
        text = xrealloc(NULL, (size_t)st.st_size + 1);
        ssize_t n = read(fd, text, (size_t)st.st_size);
        text[n < 0 ? 0 : n] = 0;
    }
    close(fd);
    return text;
}

// A regular file of a tree; copied: it is not the blob itself.
static bool leaf_stat(int tree, const char *name, const char *sha, struct stat *st, bool *copied) {
    struct stat blob;
    if (fstatat(tree, name, st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st->st_mode)) return false;
    *copied = fstatat(CACHE.blobs, sha, &blob, AT_SYMLINK_NOFOLLOW) != 0 || blob.st_ino != st->st_ino || blob.st_dev != st->st_dev;
    return true;
}

static void leaf_add(const char *digest, int tree, const char *line) {
    struct leaf l = {0};
    struct stat st;
    bool copied;
    const char *name = line + 65;
    size_t n = strcspn(name, " \n");
    if (strcspn(line, " \n") != 64 || line[64] != ' ' || !n || n >= sizeof l.name) return;
    memcpy(l.digest, digest, 64);
    memcpy(l.sha, line, 64);
    memcpy(l.name, name, n);
    if (!is_sha(l.sha)) return;
    if (leaf_stat(tree, l.name, l.sha, &st, &copied) && copied) l.copied = st.st_size;
    LEAVES.at = xrealloc(LEAVES.at, (size_t)(LEAVES.n + 1) * sizeof l);
    LEAVES.at[LEAVES.n++] = l;
}

int trees_scan(void) {
    LEAVES.n = 0;
    int fd = openat(CACHE.trees, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) return errno;
    for (struct dirent *d; (d = readdir(dir));) {
        int tree = is_sha(d->d_name) ? open_tree(d->d_name) : -1;
        char *text = tree < 0 ? NULL : list_of(tree);
        for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) leaf_add(d->d_name, tree, line);
        free(text);
        if (tree >= 0) close(tree);
    }
    closedir(dir);
    return 0;
}

// A blob's last link but one goes, and with it the change time that its record tells.
int tree_remove(const char *digest) {
    bool *known = xrealloc(NULL, (size_t)LEAVES.n + 1);
    struct stat st;
    for (int i = 0; i < LEAVES.n; i++)
        known[i] = strcmp(LEAVES.at[i].digest, digest) == 0 && blob_known(LEAVES.at[i].sha, &st) == BLOB_WHOLE;
    int err = renameat(CACHE.trees, digest, CACHE.trees, ".old") != 0 && errno != ENOENT ? errno : 0;
    if (!err) err = remove_all(CACHE.trees, ".old", 0);
    for (int i = 0; i < LEAVES.n; i++)
        if (known[i]) blob_record(LEAVES.at[i].sha, NULL, blob_used(LEAVES.at[i].sha));
    free(known);
    return err;
}

// ---- making one

bool tree_word(const char *word) {
    const char *eq = strchr(word, '=');
    size_t n = eq ? (size_t)(eq - word) : 0;
    if (!n || n > 128 || word[0] == '.' || word[0] == '-' || !is_sha(eq + 1)) return false;
    return strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-") == n;
}

// One line of the list; of a copy it is what says whether the file is still the one that was made.
static void list_line(struct sb *b, const char *name, const char *sha, const struct stat *st, bool copied) {
    sb_text(b, sha);
    sb_text(b, " ");
    sb_text(b, name);
    if (copied) {
        const int64_t told[] = {st->st_size, ns_of(st->st_mtim), ns_of(st->st_ctim), (int64_t)st->st_ino};
        for (int i = 0; i < 4; i++) {
            sb_text(b, " ");
            sb_int(b, told[i]);
        }
    }
    sb_text(b, "\n");
}

static void split(const char *word, char name[132], const char **sha) {
    *sha = strchr(word, '=') + 1;
    snprintf(name, 132, "%.*s", (int)(*sha - 1 - word), word);
}

// Every file is as it was made, and there is no other: an engine loads what lies beside it.
static bool tree_is(const char *digest, char **words, int n) {
    int tree = open_tree(digest);
    if (tree < 0) return false;
    char *have = list_of(tree);
    struct sb want = {0};
    bool good = have != NULL;
    for (int i = 0; good && i < n; i++) {
        char name[132];
        const char *sha;
        struct stat st;
        bool copied;
        split(words[i], name, &sha);
        good = leaf_stat(tree, name, sha, &st, &copied);
        if (good) list_line(&want, name, sha, &st, copied);
    }
    good = good && want.p && strcmp(have, want.p) == 0;
    int others = 0;
    DIR *dir = fdopendir(tree);
    while (dir && readdir(dir)) others++;
    if (dir) closedir(dir);
    free(have);
    sb_free(&want);
    return good && others == n + 3;   // . .. and the list
}

static int copy(int tree, const char *name, const char *sha) {
    static char buf[1 << 16];
    char hex[SHA_TEXT];
    struct sha256 s;
    struct stat st;
    ssize_t k = 0;
    int from = open_plain(CACHE.blobs, sha, O_RDONLY, &st);
    int to = from < 0 ? -1 : open_plain(tree, name, O_WRONLY | O_CREAT | O_EXCL, &st);
    int err = to < 0 ? errno : 0;
    sha256_start(&s);
    while (!err && (k = read(from, buf, sizeof buf)) > 0) {
        sha256_add(&s, buf, (size_t)k);
        err = write_all(to, buf, (size_t)k);
    }
    sha256_end(&s, hex);
    if (!err && (k < 0 || strcmp(hex, sha) != 0)) err = EIO;
    if (!err && (fchmod(to, 0755) != 0 || fsync(to) != 0)) err = errno;
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    return err;
}

static int tree_make(const char *digest, char **words, int n) {
    struct sb list = {0};
    int err = 0, tree = -1;
    if (mkdirat(CACHE.trees, ".new", 0755) != 0 || (tree = open_tree(".new")) < 0) err = errno;
    for (int i = 0; !err && i < n; i++) {
        char name[132];
        const char *sha;
        struct stat st;
        bool copied;
        split(words[i], name, &sha);
        // Android denies links, other file systems have none.
        if (linkat(CACHE.blobs, sha, tree, name, 0) != 0) err = errno == EEXIST ? EEXIST : copy(tree, name, sha);
        if (!err && !leaf_stat(tree, name, sha, &st, &copied)) err = EIO;
        if (!err) list_line(&list, name, sha, &st, copied);
    }
    struct stat st;
    int fd = err ? -1 : open_plain(tree, LIST, O_WRONLY | O_CREAT | O_EXCL, &st);
    if (!err) err = fd < 0 ? errno : write_all(fd, list.p, list.n);
    if (fd >= 0) close(fd);
    if (tree >= 0) close(tree);
    if (!err) err = tree_remove(digest);
    if (!err && renameat(CACHE.trees, ".new", CACHE.trees, digest) != 0) err = errno;
    if (err) remove_all(CACHE.trees, ".new", 0);
    sb_free(&list);
    return err;
}

static int all_whole(char **words, int n) {
    for (int i = 0; i < n; i++) {
        struct stat st;
        const char *sha = strchr(words[i], '=') + 1;
        enum blob state = blob_check(sha, false, &st);
        if (state == BLOB_WHOLE) blob_record(sha, &st, blob_used(sha));
        else return cache_fail(EXIT_ABSENT, sha, state == BLOB_ABSENT ? "not in the cache" : "damaged in the cache");
    }
    return 0;
}

int tree_put(const char *digest, char **words, int n) {
    // What must be hashed is hashed before the lock; under it nobody can drop one any more.
    int code = all_whole(words, n);
    if (!code) code = cache_lock();
    if (code) return code;
    int err = cache_scan();
    code = all_whole(words, n);
    int64_t used = cache_now();
    if (!code && !err && !tree_is(digest, words, n)) err = tree_make(digest, words, n);
    for (int i = 0; !code && !err && i < n; i++) blob_record(strchr(words[i], '=') + 1, NULL, used);
    cache_unlock();
    return code ? code : err ? cache_fail(EXIT_WRITE, CACHE.dir, strerror(err)) : 0;
}
