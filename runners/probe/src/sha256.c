// SHA-256 (FIPS 180-4): with the processor's own instructions where it has them, else in plain C; and the command `hash`.
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

typedef void blocks_fn(uint32_t h[8], const uint8_t *p, size_t blocks);

static inline uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

// Eight rounds, after which every variable is back in its place.
#define ROUND(a, b, c, d, e, f, g, h, j)                                                                              \
    h += (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (g ^ (e & (f ^ g))) + K[i + (j)] + w[(i + (j)) & 15];             \
    d += h;                                                                                                           \
    h += (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) | (c & (a | b)));

static void blocks_plain(uint32_t s[8], const uint8_t *p, size_t blocks) {
    for (; blocks; blocks--, p += 64) {
        uint32_t w[16], a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        for (int i = 0; i < 16; i++) {
            memcpy(&w[i], p + 4 * i, 4);
            w[i] = __builtin_bswap32(w[i]);
        }
        for (int i = 0; i < 64; i += 8) {
            if (i >= 16)
                for (int j = i; j < i + 8; j++) {
                    uint32_t x = w[(j + 1) & 15], y = w[(j + 14) & 15];
                    w[j & 15] += (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + w[(j + 9) & 15] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
                }
            ROUND(a, b, c, d, e, f, g, h, 0)
            ROUND(h, a, b, c, d, e, f, g, 1)
            ROUND(g, h, a, b, c, d, e, f, 2)
            ROUND(f, g, h, a, b, c, d, e, 3)
            ROUND(e, f, g, h, a, b, c, d, 4)
            ROUND(d, e, f, g, h, a, b, c, 5)
            ROUND(c, d, e, f, g, h, a, b, 6)
            ROUND(b, c, d, e, f, g, h, a, 7)
        }
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
}

// Both below: QUAD is four rounds with the words of m0; NEXT makes of it the words sixteen rounds later.
#define SIXTEEN(STEP)                                                                                                 \
    STEP(m0, m1, m2, m3, 0)                                                                                           \
    STEP(m1, m2, m3, m0, 4)                                                                                           \
    STEP(m2, m3, m0, m1, 8)                                                                                           \
    STEP(m3, m0, m1, m2, 12)
#define QUAD_NEXT(m0, m1, m2, m3, j) QUAD(m0, m1, m2, m3, j) NEXT(m0, m1, m2, m3)

#if defined(__x86_64__)
#define QUAD(m0, m1, m2, m3, j)                                                                                       \
    w = _mm_add_epi32(m0, _mm_load_si128((const __m128i *)(k + (j))));                                                \
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, w);                                                                      \
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(w, 0x0e));
#define NEXT(m0, m1, m2, m3)                                                                                          \
    m0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(m0, m1), _mm_alignr_epi8(m3, m2, 4)), m3);

__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_fast(uint32_t s[8], const uint8_t *p, size_t blocks) {
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)s), 0xb1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(s + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(badc, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, badc, 0xf0), w;
    for (; blocks; blocks--, p += 64) {
        const __m128i *from = (const __m128i *)p;
        const __m128i abef0 = abef, cdgh0 = cdgh;
        __m128i m0 = _mm_shuffle_epi8(_mm_loadu_si128(from), order), m1 = _mm_shuffle_epi8(_mm_loadu_si128(from + 1), order);
        __m128i m2 = _mm_shuffle_epi8(_mm_loadu_si128(from + 2), order), m3 = _mm_shuffle_epi8(_mm_loadu_si128(from + 3), order);
        const uint32_t *k = K;
        for (; k < K + 48; k += 16) { SIXTEEN(QUAD_NEXT) }
        SIXTEEN(QUAD)
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    badc = _mm_shuffle_epi32(abef, 0x1b);
    hgfe = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)s, _mm_blend_epi16(badc, hgfe, 0xf0));
    _mm_storeu_si128((__m128i *)(s + 4), _mm_alignr_epi8(hgfe, badc, 8));
}

static blocks_fn *blocks_best(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return blocks_plain;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA) ? blocks_fast : blocks_plain;
}
#elif defined(__aarch64__)
#define QUAD(m0, m1, m2, m3, j)                                                                                       \
    w = vaddq_u32(m0, vld1q_u32(k + (j)));                                                                            \
    old = abcd;                                                                                                       \
    abcd = vsha256hq_u32(abcd, efgh, w);                                                                              \
    efgh = vsha256h2q_u32(efgh, old, w);
#define NEXT(m0, m1, m2, m3) m0 = vsha256su1q_u32(vsha256su0q_u32(m0, m1), m2, m3);

__attribute__((target("sha2"))) static void blocks_fast(uint32_t s[8], const uint8_t *p, size_t blocks) {
    uint32x4_t abcd = vld1q_u32(s), efgh = vld1q_u32(s + 4), w, old;
    for (; blocks; blocks--, p += 64) {
        const uint32x4_t abcd0 = abcd, efgh0 = efgh;
        uint32x4_t m0 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p))), m1 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16)));
        uint32x4_t m2 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 32))), m3 = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 48)));
        const uint32_t *k = K;
        for (; k < K + 48; k += 16) { SIXTEEN(QUAD_NEXT) }
        SIXTEEN(QUAD)
        abcd = vaddq_u32(abcd, abcd0);
        efgh = vaddq_u32(efgh, efgh0);
    }
    vst1q_u32(s, abcd);
    vst1q_u32(s + 4, efgh);
}

static blocks_fn *blocks_best(void) { return getauxval(AT_HWCAP) & (1u << 6) /* SHA2 */ ? blocks_fast : blocks_plain; }
#else
static blocks_fn *blocks_best(void) { return blocks_plain; }
#endif

static blocks_fn *blocks;

void sha256_start(struct sha256 *s) {
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    blocks = blocks_best();
    memcpy(s->h, first, sizeof first);
    s->bytes = 0;
}

void sha256_add(struct sha256 *s, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t held = s->bytes & 63;
    s->bytes += n;
    if (held) {
        size_t take = n < 64 - held ? n : 64 - held;
        memcpy(s->block + held, p, take);
        p += take;
        n -= take;
        if (held + take < 64) return;
        blocks(s->h, s->block, 1);
    }
    blocks(s->h, p, n / 64);
    memcpy(s->block, p + (n & ~(size_t)63), n & 63);
}

void sha256_end(struct sha256 *s, char hex[SHA_TEXT]) {
    static const uint8_t pad[64] = {0x80};
    uint64_t bits = __builtin_bswap64(s->bytes * 8);
    sha256_add(s, pad, 1 + ((119 - (s->bytes & 63)) & 63));
    sha256_add(s, &bits, 8);
    for (int i = 0; i < 64; i++) hex[i] = "0123456789abcdef"[s->h[i / 8] >> (28 - 4 * (i & 7)) & 15];
    hex[64] = 0;
}

int sha256_fd(struct sha256 *s, int fd, int64_t n) {
    static uint8_t buf[1 << 18];
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    while (n > 0) {
        ssize_t k = read(fd, buf, n < (int64_t)sizeof buf ? (size_t)n : sizeof buf);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k < 0 ? errno : 0;
        sha256_add(s, buf, (size_t)k);
        n -= k;
    }
    return 0;
}

int cmd_hash(int argc, char **argv) {
    struct sb b = {0};
    sb_text(&b, "{\"files\":{");
    for (int i = 2; i < argc; i++) {
        struct sha256 s;
        struct stat st;
        char hex[SHA_TEXT];
        int fd = open(argv[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        int err = fd < 0 || fstat(fd, &st) != 0 ? errno : !S_ISREG(st.st_mode) ? EINVAL : 0;
        sha256_start(&s);
        if (!err) err = sha256_fd(&s, fd, INT64_MAX);
        int64_t bytes = (int64_t)s.bytes;
        if (fd >= 0) close(fd);
        if (i > 2) sb_text(&b, ",");
        sb_json(&b, argv[i], strlen(argv[i]));
        sb_text(&b, ":{\"status\":\"");
        sb_text(&b, status_of(err));
        if (!err) {
            sha256_end(&s, hex);
            sb_text(&b, "\",\"bytes\":");
            sb_int(&b, bytes);
            sb_text(&b, ",\"sha256\":\"");
            sb_text(&b, hex);
        } else {
            sb_text(&b, "\",\"errno\":");
            sb_int(&b, err);
        }
        sb_text(&b, err ? "}" : "\"}");
    }
    sb_text(&b, "}}\n");
    return write_all(1, b.p, b.n) ? EXIT_WRITE : 0;
}
