// A GPU on one host thread: blocks run one after another, each thread is a fiber, and a barrier switches fibers.
//
// The emulation breaks whatever a kernel must not rely on. Blocks run in a scattered order, and threads in another order after each
// barrier. Shared memory is full of NaN when a block begins, and has guards around it. A barrier that not all threads reach, and lanes
// that wait for lanes that never arrive, are errors.

#pragma once
#ifdef __APPLE__
#define _XOPEN_SOURCE 700 // needed for ucontext
#define _DARWIN_C_SOURCE
#endif
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <csetjmp>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

namespace emulation {

typedef unsigned int uint;

struct uint3 {
    uint x, y, z;
};

constexpr uint LANES = 32;       // of a simdgroup (warp)
constexpr uint MAX_THREADS = 1024; // of a block
constexpr size_t STACK = 128 << 10;

// Half precision in memory, single in arithmetic; rounded to nearest, halves to even.
struct Half {
    uint16_t bits;

    Half() = default;
    Half(float value) : bits(encode(value)) {}
    operator float() const { return decode(bits); }

    static uint32_t word(float value) {
        uint32_t w;
        memcpy(&w, &value, 4);
        return w;
    }
    static float number(uint32_t w) {
        float value;
        memcpy(&value, &w, 4);
        return value;
    }
    static uint16_t encode(float value) {
        uint32_t w = word(value), sign = w >> 16 & 0x8000;
        w &= 0x7fffffff;
        if (w > 0x7f800000) return uint16_t(sign | 0x7e00);                       // NaN
        if (w >= 0x477ff000) return uint16_t(sign | 0x7c00);                      // 65520 and above: infinite
        if (w < 0x38800000) {                                                     // subnormal: a multiple of 2^-24
            float scaled = number(w) * 16777216.0f;
            return uint16_t(sign | uint32_t(std::nearbyint(scaled)));
        }
        w += 0xfff + (w >> 13 & 1);
        return uint16_t(sign | ((w - 0x38000000) >> 13));
    }
    static float decode(uint16_t h) {
        uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff;
        if (rest >= 0x7c00) return number(sign | 0x7f800000 | (rest & 0x3ff) << 13);
        if (rest < 0x400) return number(sign | word(float(rest) / 16777216.0f));
        return number(sign | ((rest << 13) + 0x38000000));
    }
};
static_assert(std::is_trivial<Half>::value, "shared arrays of it need no constructor");

// The arguments of a launch.
struct Arguments {
    void* const* buffers;
    const void* params;
};

struct Fiber {
    enum State { READY, BARRIER, LANES_MEET, FINISHED } state;
    uint3 thread;
    uint index;
    uint meetings;      // how often its lanes met; the parity selects the slot
    uint64_t slots[2];  // the words that it contributes to a meeting
    ucontext_t context;
    jmp_buf at;
    char* stack;
    bool started;
};

struct Engine {
    Fiber fibers[MAX_THREADS];
    uint threads;
    Fiber* running;
    uint3 block, block_size, grid;
    uint64_t serial;  // of the block; tells shared memory that a new block began
    uint64_t random;
    void (*kernel)(const Arguments&);
    const Arguments* arguments;
    jmp_buf scheduler;
    ucontext_t first;
    std::vector<std::pair<const unsigned char*, size_t>> guards;

    uint next(uint below) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        return uint((random >> 33) % below);
    }
};

// The host thread's own engine, which lives as long as the thread.
inline Engine& engine() {
    struct Owner {
        Engine* engine;
        ~Owner() {
            for (Fiber& fiber : engine->fibers) delete[] fiber.stack;
            delete engine;
        }
    };
    static thread_local Owner owner{new Engine()};
    return *owner.engine;
}

// Switches to the scheduler until it resumes this fiber.
inline void pause(Fiber::State state) {
    Engine& e = engine();
    Fiber* self = e.running;
    self->state = state;
    if (!_setjmp(self->at)) _longjmp(e.scheduler, 1);
}

inline void fiber_body() {
    for (;;) {
        Engine& e = engine();
        e.kernel(*e.arguments);
        pause(Fiber::FINISHED);
    }
}

inline void resume(Engine& e, Fiber& fiber) {
    e.running = &fiber;
    if (_setjmp(e.scheduler)) return;
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    if (!fiber.stack) fiber.stack = new char[STACK];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_body, 0);
    swapcontext(&e.first, &fiber.context);
}

// A barrier for all threads of the block.
inline void barrier() { pause(Fiber::BARRIER); }

// The simdgroup's lanes meet, each with a word; `see(lane, word)` gets the words of all lanes that have not finished.
template <typename F> inline void meet(uint64_t word, F see) {
    Engine& e = engine();
    Fiber* self = e.running;
    uint slot = self->meetings++ % 2;
    self->slots[slot] = word;
    pause(Fiber::LANES_MEET);
    uint base = self->index / LANES * LANES;
    for (uint lane = 0; lane < LANES && base + lane < e.threads; ++lane) {
        const Fiber& other = e.fibers[base + lane];
        // A lane that has continued may have finished or met again, but not twice: its word is still there.
        if (other.meetings >= self->meetings) see(lane, other.slots[slot]);
    }
}

template <typename T> inline uint64_t to_word(T value) {
    static_assert(sizeof(T) <= 8, "lanes exchange words");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(T));
    return word;
}
template <typename T> inline T from_word(uint64_t word) {
    T value;
    memcpy(&value, &word, sizeof(T));
    return value;
}

inline uint lane() { return engine().running->index % LANES; }

// The value of another lane; the lane's own value if the other does not exist.
template <typename T> inline T from_lane(T value, uint source) {
    T found = value;
    meet(to_word(value), [&](uint lane, uint64_t word) { if (lane == source) found = from_word<T>(word); });
    return found;
}

// Shared memory of a block.
template <typename T> struct Shared {
    uint64_t serial;
    unsigned char before[64];
    alignas(64) T value;
    unsigned char after[64];

    T& open() {
        Engine& e = engine();
        if (serial != e.serial) {
            serial = e.serial;
            memset(before, 0xff, sizeof before);
            memset((void*)&value, 0xff, sizeof value); // NaN in single and in half precision
            memset(after, 0xff, sizeof after);
            e.guards.push_back({before, sizeof before});
            e.guards.push_back({after, sizeof after});
        }
        return value;
    }
};

#define SHARED(T, name, dims) static thread_local ::emulation::Shared<T dims> name##_room; auto& name = name##_room.open()

// Runs a block; returns the error, or null.
inline const char* run_block(Engine& e) {
    static thread_local uint64_t serials = 0;
    e.serial = ++serials;
    e.guards.clear();
    for (uint i = 0; i < e.threads; ++i) {
        Fiber& f = e.fibers[i];
        f.state = Fiber::READY;
        f.index = i;
        f.thread = {i % e.block_size.x, i / e.block_size.x % e.block_size.y, i / e.block_size.x / e.block_size.y};
        f.meetings = 0;
    }
    // Simdgroups advance in step, or each runs as far ahead of the others as barriers allow.
    const bool ahead = e.next(2);
    const uint groups = (e.threads + LANES - 1) / LANES;
    for (;;) {
        uint start = e.next(groups), first = e.next(LANES);
        bool backwards = e.next(2), ready = false;
        uint waiting = 0, finished = 0;
        for (uint i = 0; i < groups; ++i) {
            uint base = (start + (backwards ? groups - i : i)) % groups * LANES;
            uint size = base + LANES < e.threads ? LANES : e.threads - base;
            for (bool again = true; again;) {
                for (uint j = 0; j < size; ++j) {
                    uint lane = (first + (backwards ? size - j : j)) % size;
                    if (e.fibers[base + lane].state == Fiber::READY) resume(e, e.fibers[base + lane]);
                }
                uint meeting = 0, gone = 0;
                for (uint lane = 0; lane < size; ++lane) {
                    meeting += e.fibers[base + lane].state == Fiber::LANES_MEET;
                    gone += e.fibers[base + lane].state == Fiber::FINISHED;
                }
                bool met = meeting && meeting + gone == size;
                for (uint lane = 0; met && lane < size; ++lane) {
                    if (e.fibers[base + lane].state == Fiber::LANES_MEET) e.fibers[base + lane].state = Fiber::READY;
                }
                ready |= met && !ahead;
                again = met && ahead;
            }
            for (uint lane = 0; lane < size; ++lane) {
                waiting += e.fibers[base + lane].state == Fiber::BARRIER;
                finished += e.fibers[base + lane].state == Fiber::FINISHED;
            }
        }
        if (ready) continue;
        if (finished == e.threads) break;
        if (waiting != e.threads) return "not all threads of a block reach a barrier, or not all lanes an exchange";
        for (uint i = 0; i < e.threads; ++i) e.fibers[i].state = Fiber::READY;
    }
    for (auto guard : e.guards) {
        for (size_t i = 0; i < guard.second; ++i) {
            if (guard.first[i] != 0xff) return "a thread wrote beside an array in shared memory";
        }
    }
    return nullptr;
}

// Passes a kernel its arguments: pointers and parameters in order, then the built-in values that the language passes as arguments.
struct Feed {
    const Arguments& a;
    int pointers = 0, places = 0, numbers = 0;

    template <typename A> A get() {
        typedef typename std::remove_cv<typename std::remove_reference<A>::type>::type Plain;
        Engine& e = engine();
        if constexpr (std::is_pointer<A>::value) {
            return (A)a.buffers[pointers++];
        } else if constexpr (std::is_same<Plain, uint3>::value) {
            return places++ == 0 ? e.block : e.running->thread;
        } else if constexpr (std::is_same<Plain, uint>::value) {
            return numbers++ == 0 ? lane() : e.running->index / LANES;
        } else {
            return *(const Plain*)a.params;
        }
    }
};

template <auto F> struct Runner;
template <typename... A, void (*F)(A...)> struct Runner<F> {
    static void run(const Arguments& arguments) {
        Feed feed{arguments};
        std::tuple<A...> all{feed.get<A>()...}; // braces: evaluated from left to right
        std::apply(F, all);
    }
    static constexpr uint pointers = (uint(std::is_pointer<A>::value) + ... + 0);
    // Whether each of the pointers may be written through, the first in the lowest bit.
    static constexpr uint writes() {
        uint bits = 0, at = 0;
        ((std::is_pointer<A>::value ? void(bits |= uint(!std::is_const<typename std::remove_pointer<A>::type>::value) << at++) : void()), ...);
        return bits;
    }
    template <typename T> static constexpr uint size() {
        typedef typename std::remove_cv<typename std::remove_reference<T>::type>::type Plain;
        constexpr bool other = std::is_pointer<T>::value || std::is_same<Plain, uint3>::value || std::is_same<Plain, uint>::value;
        return other ? 0 : sizeof(Plain);
    }
    static constexpr uint params = (size<A>() + ... + 0);
};

struct Entry {
    const char* name;
    void (*run)(const Arguments&);
    uint pointers, params, writes;
};

inline std::vector<Entry>& entries() {
    static std::vector<Entry> all;
    return all;
}

struct Registered {
    Registered(Entry entry) { entries().push_back(entry); }
};

// Registers a kernel under its name, prefixed with the variant that is being compiled.
#define KERNEL_ENTRY(name, ...)                                                                                                   \
    static const ::emulation::Registered name##_entry(::emulation::Entry{                                                         \
        VARIANT #name, ::emulation::Runner<&__VA_ARGS__>::run, ::emulation::Runner<&__VA_ARGS__>::pointers,                               \
        ::emulation::Runner<&__VA_ARGS__>::params, ::emulation::Runner<&__VA_ARGS__>::writes()})

inline const Entry* find(const char* name) {
    for (const Entry& entry : entries()) {
        if (!strcmp(entry.name, name)) return &entry;
    }
    return nullptr;
}

inline int fail(char* text, size_t room, const char* reason) {
    snprintf(text, room, "%s", reason);
    return 1;
}

} // namespace emulation

// A kernel's signature: pointers, which of them it writes through, bytes of parameters. Returns 0, or 1 if there is no such kernel.
extern "C" __attribute__((visibility("default"))) int emulation_entry(const char* name, uint32_t* pointers, uint32_t* writes, uint32_t* params) {
    const emulation::Entry* entry = emulation::find(name);
    if (entry) *pointers = entry->pointers, *writes = entry->writes, *params = entry->params;
    return !entry;
}

// Runs a kernel and waits for it. Returns 0, or 1 with the reason in `text`.
extern "C" __attribute__((visibility("default"))) int emulation_launch(const char* name, const uint32_t* grid, const uint32_t* block, void* const* buffers,
                                uint32_t buffer_count, const void* params, uint32_t params_len, uint64_t seed, char* text, size_t room) {
    using namespace emulation;
    const Entry* entry = find(name);
    if (!entry) return fail(text, room, "there is no such entry");
    if (entry->pointers != buffer_count) return fail(text, room, "it takes another number of buffers");
    if (entry->params != params_len) return fail(text, room, "its parameters are of another size");
    uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2], threads = uint64_t(block[0]) * block[1] * block[2];
    if (blocks == 0 || blocks > 0xffffffff || threads == 0 || threads > MAX_THREADS) {
        return fail(text, room, "its grid or block has no size that a GPU has");
    }
    Engine& e = engine();
    Arguments arguments{buffers, params};
    e.arguments = &arguments;
    e.kernel = entry->run;
    e.threads = uint(threads);
    e.grid = {grid[0], grid[1], grid[2]};
    e.block_size = {block[0], block[1], block[2]};
    e.random = seed;
    // A step that is coprime to the number of blocks visits all of them.
    uint64_t step = blocks > 2 ? blocks * 5 / 8 : 1;
    auto coprime = [&](uint64_t a) {
        uint64_t b = blocks;
        while (b) { uint64_t r = a % b; a = b; b = r; }
        return a == 1;
    };
    while (!coprime(step)) ++step;
    uint64_t at = e.next(uint(blocks));
    for (uint64_t i = 0; i < blocks; ++i, at = (at + step) % blocks) {
        e.block = {uint(at % grid[0]), uint(at / grid[0] % grid[1]), uint(at / grid[0] / grid[1])};
        if (const char* reason = run_block(e)) {
            // Fibers stopped midway: the next launch begins with new ones.
            for (Fiber& f : e.fibers) f.started = false;
            return fail(text, room, reason);
        }
    }
    return 0;
}
