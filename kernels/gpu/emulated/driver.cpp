// A stand-in for NVIDIA's driver, for tests only. It has the driver's name and calls, and runs the emulated kernels on the CPU, so that
// the host code is checked strictly on machines without a GPU.
//
// It always does what a real driver may do but seldom does. Work is queued, and runs only when somebody waits for it (`order`). New
// memory is NaN, between guards. Device addresses mean nothing to the CPU, and addresses and handles are never reused. Misuse that a
// real driver tolerates is reported on standard error, and the process ends with code 70: two streams that access the same memory
// without an order, memory that is freed while queued work uses it, writes outside of memory, and whatever is left when the last
// holder releases the device.
//
// RTFORMER_STAND_IN=key=value,.. changes its behaviour and makes calls fail; the keys are in `Settings`.

#include <algorithm>
#include <condition_variable>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

extern "C" int emulation_entry(const char* name, uint32_t* pointers, uint32_t* writes, uint32_t* params);
extern "C" int emulation_launch(const char* name, const uint32_t* grid, const uint32_t* block, void* const* buffers, uint32_t buffer_count,
                                const void* params, uint32_t params_len, uint64_t seed, char* text, size_t room);

namespace {

using std::make_shared;
using std::shared_ptr;
using std::string;
using std::vector;
typedef uint64_t u64;
typedef int Result; // CUresult

enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

constexpr size_t GUARD = 4096;
constexpr unsigned char POISON = 0xff;
constexpr u64 FIRST = u64(1) << 52; // base of addresses and handles: no CPU has such an address

bool objected = false; // whether there was any complaint; sets the exit code

void object(const char* format, ...) {
    char text[512];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    fprintf(stderr, "stand-in driver: %s\n", text);
    objected = true;
}

struct Settings {
    int version = 12020;        // of CUDA
    int devices = 1;
    int capability = 90;
    int multiprocessors = 1;    // 1, so that small maps use many blocks
    u64 memory = u64(4) << 30;  // bytes of a device
    u64 pinned = u64(4) << 30;  // bytes of the host that may be pinned
    u64 lost_after = ~u64(0);   // launches until one fails and takes the device with it
    Result lost = LAUNCH_FAILED; // with this code
    string order = "late";      // when queued work runs: late, early, or a number (a seed for random times)
    bool leaks = false;         // whether leaks are allowed
    string fail;                // call:code[:n]: from its nth time on, that call returns that code
    u64 random = 0;

    Settings() {
        const char* all = getenv("RTFORMER_STAND_IN");
        for (string rest = all ? all : ""; !rest.empty();) {
            size_t end = std::min(rest.find(','), rest.size()), equals = rest.find('=');
            if (equals >= end) bad(rest);
            string key = rest.substr(0, equals), value = rest.substr(equals + 1, end - equals - 1);
            u64 number = strtoull(value.c_str(), nullptr, 10);
            if (key == "version") version = int(number);
            else if (key == "devices") devices = int(number);
            else if (key == "capability") capability = int(number);
            else if (key == "multiprocessors") multiprocessors = int(number);
            else if (key == "memory") memory = number;
            else if (key == "pinned") pinned = number;
            else if (key == "lost_after") lost_after = number;
            else if (key == "lost") lost = Result(number);
            else if (key == "order") order = value, random = number;
            else if (key == "leaks") leaks = value == "allowed";
            else if (key == "fail") fail = value;
            else bad(key);
            rest = end < rest.size() ? rest.substr(end + 1) : "";
        }
    }
    [[noreturn]] static void bad(const string& key) {
        fprintf(stderr, "stand-in driver: RTFORMER_STAND_IN has no `%s`\n", key.c_str());
        _exit(70);
    }
    // The newest PTX version that a driver of this version reads.
    int ptx() const {
        static const int twelve[] = {80, 81, 82, 83, 84, 85, 85, 86, 87, 88};
        int major = version / 1000, minor = version % 1000 / 10;
        return major == 12 ? twelve[std::min(minor, 9)] : major > 12 ? 90 + minor : 70 + minor;
    }
};

// How much of each stream happened before something.
struct Clock {
    std::map<u64, u64> seen;
    void join(const Clock& other) {
        for (auto [stream, upto] : other.seen) seen[stream] = std::max(seen[stream], upto);
    }
    bool has(u64 stream, u64 number) const {
        auto at = seen.find(stream);
        return at != seen.end() && at->second >= number;
    }
};

struct Context {
    u64 handle;
    int device;
    int retained = 0;
    bool live = true;
    Result lost = SUCCESS; // what every call returns after the device was lost
};

struct Access {
    u64 from, to, stream, number;
    bool writes;
    const char* what;
};

// Device memory or pinned memory.
struct Memory {
    u64 address, size;
    bool pinned, live = true;
    shared_ptr<Context> context;
    unsigned char* room;
    vector<Access> accesses; // those that a later access may still have to be ordered after

    Memory(u64 address, u64 size, bool pinned, shared_ptr<Context> context, unsigned char* room)
        : address(address), size(size), pinned(pinned), context(std::move(context)), room(room) {
        memset(room, POISON, size + 2 * GUARD);
    }
    ~Memory() { free(room); }
    Memory(const Memory&) = delete;
    unsigned char* bytes() const { return room + GUARD; }
    bool sound() const {
        for (size_t i = 0; i < GUARD; ++i) {
            if (room[i] != POISON || bytes()[size + i] != POISON) return false;
        }
        return true;
    }
};

struct Span {
    shared_ptr<Memory> memory;
    u64 from, to;
    bool writes;
    unsigned char* bytes() const { return memory->bytes() + from; }
};

struct Module {
    string text; // without comments
    shared_ptr<Context> context;
};

struct Function {
    string name;
    shared_ptr<Context> context;
    shared_ptr<Module> module;
    uint32_t pointers = 0, writes = 0, params = 0;
    u64 max_threads = 1024;
};

struct Stream;

struct Event {
    u64 handle;
    shared_ptr<Context> context;
    bool timed, recorded = false, done = false, captured = false;
    shared_ptr<Stream> stream; // where it was last recorded
    u64 number = 0;            // the work after which it is recorded
    double milliseconds = 0;
    Clock clock;
};

// Work that is queued, or captured to be queued repeatedly.
struct Work {
    enum Kind { LAUNCH, COPY_IN, COPY_OUT, RECORD, WAIT } kind;
    const char* what;
    vector<Span> spans;           // a kernel's pointers; for a copy, the device memory, then the pinned memory if it is pinned
    shared_ptr<Function> function;
    uint32_t grid[3], block[3];
    vector<unsigned char> params; // or the data of a copy from memory that may change at once
    void* pageable = nullptr;     // the destination of a copy
    shared_ptr<Event> event;
    bool external = false;
};

struct Queued {
    shared_ptr<const Work> work;
    vector<std::pair<shared_ptr<Stream>, u64>> after;
    Clock clock;
};

struct Capture {
    int mode;
    std::thread::id thread;
    vector<shared_ptr<const Work>> works;
    bool broken = false;
};

struct Stream : std::enable_shared_from_this<Stream> {
    u64 handle;
    shared_ptr<Context> context;
    std::deque<Queued> queue;
    u64 asked = 0, done = 0; // numbers of work items
    Clock clock;
    std::unique_ptr<Capture> capture;
};

struct Graph {
    shared_ptr<Context> context;
    vector<shared_ptr<const Work>> works;
    // For one that can be launched: its last launch, which the next one follows.
    shared_ptr<Stream> stream;
    u64 number = 0;
    Clock clock;
};

// A fair lock: first come, first served.
class Turn {
    std::mutex mutex;
    std::condition_variable changed;
    u64 next = 0, serving = 0;

public:
    void lock() {
        std::unique_lock<std::mutex> guard(mutex);
        u64 mine = next++;
        changed.wait(guard, [&] { return serving == mine; });
    }
    void unlock() {
        std::lock_guard<std::mutex> guard(mutex);
        ++serving;
        changed.notify_all();
    }
};

template <typename T> using Table = std::map<u64, shared_ptr<T>>;

template <typename T> shared_ptr<T> find(const Table<T>& table, const void* handle) {
    auto at = table.find(u64(handle));
    return at == table.end() ? nullptr : at->second;
}

struct Driver {
    Turn turn;
    Settings settings;
    bool initialised = false;
    u64 next_handle = FIRST, next_address = 2 * FIRST + 256; // a multiple of 256, as the real driver promises, and not of more
    u64 launches = 0, serials = 0;
    std::map<int, shared_ptr<Context>> primary;
    Table<Context> contexts;
    Table<Memory> memories; // by the address of their first byte
    Table<Module> modules;
    Table<Function> functions;
    Table<Stream> streams;
    vector<shared_ptr<Stream>> closed; // destroyed while work is still pending
    Table<Event> events;
    Table<Graph> graphs, executables;
    std::map<string, u64> calls;
    Clock host; // what somebody waited for

    u64 handle() { return next_handle += 16; }

    shared_ptr<Memory> memory_at(u64 address) {
        auto at = memories.upper_bound(address);
        if (at == memories.begin()) return nullptr;
        const auto& memory = std::prev(at)->second;
        return address - memory->address < memory->size ? memory : nullptr;
    }

    u64 used(bool pinned, const Context* context) {
        u64 bytes = 0;
        for (const auto& [_, memory] : memories) {
            if (memory->pinned == pinned && (pinned || memory->context.get() == context)) bytes += (memory->size + 511) / 512 * 512;
        }
        return bytes;
    }

    // Marks the device, and everything on it, as lost.
    void lose(Context& context, Result code) { context.lost = code; }

    // Records an access to memory after everything in `clock`. Complains about accesses that have no order relative to it.
    void touch(const Span& span, const Clock& clock, u64 stream, u64 number, const char* what) {
        auto& accesses = span.memory->accesses;
        // Everything that the host waited for comes before all later requests.
        auto settled = [&](const Access& a) { return host.has(a.stream, a.number); };
        accesses.erase(std::remove_if(accesses.begin(), accesses.end(), settled), accesses.end());
        for (const Access& a : accesses) {
            bool meet = a.from < span.to && span.from < a.to && (a.writes || span.writes);
            if (meet && !clock.has(a.stream, a.number) && !(a.stream == stream && a.number == number)) {
                object("`%s` %s memory that `%s` in another stream %s, and nothing says which comes first", what,
                       span.writes ? "writes" : "reads", a.what, a.writes ? "writes" : "reads");
                break;
            }
        }
        // Whatever follows this access also follows the accesses before it.
        auto covered = [&](const Access& a) {
            return a.stream == stream && a.number != number && span.from <= a.from && a.to <= span.to && (span.writes || !a.writes);
        };
        accesses.erase(std::remove_if(accesses.begin(), accesses.end(), covered), accesses.end());
        accesses.push_back({span.from, span.to, stream, number, span.writes, what});
    }

    // Queues work after everything queued so far.
    u64 ask(const shared_ptr<Stream>& stream, shared_ptr<const Work> work, std::pair<shared_ptr<Stream>, u64> after = {}) {
        Queued queued{work, {}, {}};
        if (after.first && after.first != stream) queued.after.push_back(after);
        const auto& event = work->event;
        if (work->kind == Work::WAIT && event->recorded) {
            if (event->stream != stream) queued.after.push_back({event->stream, event->number});
            stream->clock.join(event->clock);
        }
        u64 number = ++stream->asked;
        stream->clock.join(host);
        stream->clock.seen[stream->handle] = number;
        queued.clock = stream->clock;
        for (const Span& span : work->spans) touch(span, queued.clock, stream->handle, number, work->what);
        if (work->kind == Work::RECORD && !work->external) {
            event->recorded = true, event->done = false, event->captured = false;
            event->stream = stream, event->number = number, event->clock = queued.clock;
        }
        stream->queue.push_back(std::move(queued));
        return number;
    }

    // Runs the first queued work, after the work that it has to follow.
    void run_first(const shared_ptr<Stream>& stream) {
        Queued queued = std::move(stream->queue.front());
        stream->queue.pop_front();
        for (const auto& [other, number] : queued.after) {
            while (other->done < number) run_first(other);
        }
        if (stream->context->lost == SUCCESS) run(*stream, queued);
        ++stream->done;
    }

    void run(Stream& stream, const Queued& queued) {
        const Work& work = *queued.work;
        Context& context = *stream.context;
        for (const Span& span : work.spans) {
            if (!span.memory->live) {
                object("`%s` uses memory that was given back", work.what);
                return lose(context, ILLEGAL_ADDRESS);
            }
        }
        switch (work.kind) {
        case Work::LAUNCH: {
            if (launches++ >= settings.lost_after) return lose(context, settings.lost);
            char text[256] = "";
            vector<void*> pointers;
            for (const Span& span : work.spans) pointers.push_back(span.bytes());
            const string name = "0." + work.function->name;
            vector<long double> params(work.params.size() / sizeof(long double) + 1); // aligned for any type
            memcpy((void*)params.data(), work.params.data(), work.params.size());
            if (emulation_launch(name.c_str(), work.grid, work.block, pointers.data(), uint32_t(pointers.size()), params.data(),
                                 uint32_t(work.params.size()), serials++, text, sizeof text)) {
                object("kernel `%s`: %s", work.what, text);
                return lose(context, LAUNCH_FAILED);
            }
            break;
        }
        case Work::COPY_IN: {
            const Span& to = work.spans[0];
            memcpy(to.bytes(), work.spans.size() > 1 ? work.spans[1].bytes() : work.params.data(), to.to - to.from);
            break;
        }
        case Work::COPY_OUT: {
            const Span& from = work.spans[0];
            memcpy(work.spans.size() > 1 ? work.spans[1].bytes() : work.pageable, from.bytes(), from.to - from.from);
            break;
        }
        case Work::RECORD: {
            Event& event = *work.event;
            u64 number = stream.done + 1;
            // In a graph, it is recorded when the graph runs, not when it is requested.
            if (work.external) {
                event.recorded = true, event.captured = false;
                event.stream = stream.shared_from_this(), event.number = number, event.clock = queued.clock;
            }
            if (event.stream.get() == &stream && event.number == number) event.done = true, event.milliseconds = now();
            break;
        }
        case Work::WAIT: break;
        }
        for (const Span& span : work.spans) {
            if (!span.memory->sound()) {
                object("`%s` wrote beside its memory, or somebody did ahead of it", work.what);
                return lose(context, ILLEGAL_ADDRESS);
            }
        }
    }

    static double now() {
        timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return double(time.tv_sec) * 1e3 + double(time.tv_nsec) * 1e-6;
    }

    // Streams with queued work, of one context or of all.
    vector<shared_ptr<Stream>> busy(const Context* context = nullptr) {
        vector<shared_ptr<Stream>> all;
        auto look = [&](const shared_ptr<Stream>& stream) {
            if (!stream->queue.empty() && (!context || stream->context.get() == context)) all.push_back(stream);
        };
        for (const auto& [_, stream] : streams) look(stream);
        for (const auto& stream : closed) look(stream);
        return all;
    }

    u64 roll(u64 below) {
        settings.random = settings.random * 6364136223846793005u + 1442695040888963407u;
        return (settings.random >> 33) % below;
    }

    // What a device does while the host is busy.
    void meanwhile() {
        bool early = settings.order == "early";
        if (settings.order == "late" || (!early && roll(4) != 0)) return;
        for (u64 left = early ? ~u64(0) : roll(40); left > 0; --left) {
            auto all = busy();
            if (all.empty()) return;
            run_first(all[roll(all.size())]);
        }
    }

    // Waits until a stream has done this much. Other streams may run meanwhile.
    void wait(const shared_ptr<Stream>& stream, u64 number) {
        while (stream->done < number && !stream->queue.empty()) {
            run_first(stream);
            turn.unlock();
            turn.lock();
        }
    }

    bool captures(const Context& context) {
        for (const auto& [_, stream] : streams) {
            if (stream->capture && stream->context.get() == &context) return true;
        }
        return false;
    }

    // A call that is not queued, and so not captured, invalidates captures that forbid it.
    bool forbidden() {
        bool any = false;
        for (const auto& [_, stream] : streams) {
            Capture* capture = stream->capture.get();
            if (!capture) continue;
            bool own = capture->thread == std::this_thread::get_id();
            if (own ? capture->mode != 2 : capture->mode == 0) any = capture->broken = true;
        }
        return any;
    }

    // Reports what is left of a context.
    void leftovers(const shared_ptr<Context>& context) {
        if (settings.leaks || context->lost != SUCCESS) return;
        u64 count[2] = {}, bytes[2] = {};
        for (const auto& [_, memory] : memories) {
            if (memory->context != context) continue;
            ++count[memory->pinned], bytes[memory->pinned] += memory->size;
        }
        auto say = [](u64 count, const char* what, u64 bytes) {
            if (count && bytes) object("leaked: %llu %s, %llu bytes", (unsigned long long)count, what, (unsigned long long)bytes);
            else if (count) object("leaked: %llu %s", (unsigned long long)count, what);
        };
        say(count[0], "pieces of device memory", bytes[0]);
        say(count[1], "pieces of pinned memory", bytes[1]);
        auto of = [&](const auto& table) {
            u64 count = 0;
            for (const auto& [_, thing] : table) count += thing->context == context;
            return count;
        };
        say(of(streams), "streams", 0);
        say(of(events), "events", 0);
        say(of(graphs), "graphs", 0);
        say(of(executables), "instantiated graphs", 0);
    }

    template <typename T> void forget(Table<T>& table, const shared_ptr<Context>& context) {
        for (auto at = table.begin(); at != table.end();) at = at->second->context == context ? table.erase(at) : std::next(at);
    }

    void destroy(const shared_ptr<Context>& context) {
        for (auto all = busy(context.get()); !all.empty(); all = busy(context.get())) {
            if (context->lost == SUCCESS) object("the device is let go while work for it is queued");
            for (const auto& stream : all) {
                while (!stream->queue.empty()) run_first(stream);
            }
        }
        leftovers(context);
        for (const auto& [_, memory] : memories) {
            if (memory->context == context) memory->live = false;
        }
        forget(memories, context), forget(modules, context), forget(functions, context), forget(streams, context);
        forget(events, context), forget(graphs, context), forget(executables, context);
        context->live = false;
    }
};

Driver& driver() {
    static Driver* all = new Driver(); // never freed: threads may outlive `main`
    return *all;
}

thread_local u64 current = 0; // the calling thread's context

__attribute__((destructor)) void at_exit() {
    Driver& d = driver();
    for (const auto& [device, context] : d.primary) {
        if (!d.settings.leaks && context->lost == SUCCESS) {
            object("device %d is still held %d times", device, context->retained);
            d.leftovers(context);
        }
    }
    if (objected) {
        fflush(nullptr);
        _exit(70);
    }
}

// One call of the driver, from its first line to its last.
struct Call {
    Driver& d = driver();
    const char* name;
    Result refused = SUCCESS;
    shared_ptr<Context> context;

    enum Needs { NOTHING, INITIALISED, CONTEXT };

    Call(const char* name, Needs needs) : name(name) {
        d.turn.lock();
        u64 times = ++d.calls[name];
        const string& fail = d.settings.fail;
        size_t colon = fail.find(':'), second = fail.find(':', colon + 1);
        if (colon != string::npos && fail.substr(0, colon) == name) {
            u64 first = second == string::npos ? 1 : strtoull(fail.c_str() + second + 1, nullptr, 10);
            if (times >= first) refused = Result(strtoul(fail.c_str() + colon + 1, nullptr, 10));
        }
        if (refused) return;
        if (needs >= INITIALISED && !d.initialised) refuse(NOT_INITIALIZED, "`cuInit` was not called");
        if (refused || needs < CONTEXT) return;
        context = find(d.contexts, (void*)current);
        if (!context) refuse(INVALID_CONTEXT, "the thread has no context");
        else if (!context->live) refuse(CONTEXT_IS_DESTROYED, "the thread's context is no more");
        else refused = context->lost;
    }
    ~Call() {
        d.meanwhile();
        d.turn.unlock();
    }
    // Reports misuse.
    Result refuse(Result code, const char* why) {
        object("%s: %s", name, why);
        return refused = code;
    }
    // Queues or captures work of a stream.
    Result ask(const shared_ptr<Stream>& stream, shared_ptr<const Work> work) {
        if (!stream->capture) {
            d.ask(stream, std::move(work));
            return SUCCESS;
        }
        if (stream->capture->broken) return CAPTURE_INVALIDATED;
        stream->capture->works.push_back(std::move(work));
        return SUCCESS;
    }
    // Invalidates a capture because of something that cannot be captured.
    Result uncapturable(Stream& stream, const char* why, Result code = CAPTURE_UNSUPPORTED) {
        fprintf(stderr, "stand-in driver: %s: %s\n", name, why);
        stream.capture->broken = true;
        return code;
    }
};

#define CUDA(name, parameters) extern "C" __attribute__((visibility("default"))) Result name parameters
#define BEGIN(needs)                     \
    Call call(__func__, Call::needs);    \
    Driver& d = call.d;                  \
    (void)d;                             \
    if (call.refused) return call.refused
#define FIND(variable, table, handle)                                                   \
    auto variable = find(d.table, handle);                                              \
    if (!variable) return call.refuse(INVALID_HANDLE, "there is no such " #variable);    \
    if (variable->context != call.context) return call.refuse(INVALID_HANDLE, "the " #variable " is another context's")
#define UNCAPTURED()                                                                                              \
    if (d.forbidden()) {                                                                                          \
        fprintf(stderr, "stand-in driver: %s: a stream is being captured, which forbids it\n", __func__);        \
        return CAPTURE_UNSUPPORTED;                                                                               \
    }

} // namespace

// ---- the driver and its devices

CUDA(cuDriverGetVersion, (int* version)) {
    BEGIN(NOTHING);
    *version = d.settings.version;
    return SUCCESS;
}

CUDA(cuInit, (unsigned flags)) {
    BEGIN(NOTHING);
    if (flags) return call.refuse(INVALID_VALUE, "flags have to be zero");
    if (d.settings.devices == 0) return NO_DEVICE;
    d.initialised = true;
    return SUCCESS;
}

CUDA(cuDeviceGetCount, (int* count)) {
    BEGIN(INITIALISED);
    *count = d.settings.devices;
    return SUCCESS;
}

CUDA(cuDeviceGet, (int* device, int number)) {
    BEGIN(INITIALISED);
    if (number < 0 || number >= d.settings.devices) return call.refuse(INVALID_DEVICE, "there is no such device");
    *device = number;
    return SUCCESS;
}

CUDA(cuDeviceGetName, (char* name, int room, int device)) {
    BEGIN(INITIALISED);
    if (device < 0 || device >= d.settings.devices) return call.refuse(INVALID_DEVICE, "there is no such device");
    snprintf(name, size_t(room), "Stand-in %d", device);
    return SUCCESS;
}

CUDA(cuDeviceGetAttribute, (int* value, int attribute, int device)) {
    BEGIN(INITIALISED);
    if (device < 0 || device >= d.settings.devices) return call.refuse(INVALID_DEVICE, "there is no such device");
    switch (attribute) {
    case 1: *value = 1024; break;                        // threads per block
    case 8: *value = 48 << 10; break;                    // shared memory per block
    case 10: *value = 32; break;                         // threads per warp
    case 13: *value = 1'000'000; break;                  // kHz
    case 16: *value = d.settings.multiprocessors; break;
    case 39: *value = 2048; break;                       // threads per multiprocessor
    case 41: *value = 1; break;                          // unified addressing
    case 75: *value = d.settings.capability / 10; break;
    case 76: *value = d.settings.capability % 10; break;
    default: return call.refuse(INVALID_VALUE, "the stand-in has no such attribute");
    }
    return SUCCESS;
}

CUDA(cuDevicePrimaryCtxRetain, (void** handle, int device)) {
    BEGIN(INITIALISED);
    if (device < 0 || device >= d.settings.devices) return call.refuse(INVALID_DEVICE, "there is no such device");
    auto& context = d.primary[device];
    if (!context) {
        context = make_shared<Context>(Context{d.handle(), device});
        d.contexts[context->handle] = context;
    }
    ++context->retained;
    *handle = (void*)context->handle;
    return SUCCESS;
}

CUDA(cuDevicePrimaryCtxRelease_v2, (int device)) {
    BEGIN(INITIALISED);
    auto at = d.primary.find(device);
    if (at == d.primary.end()) return call.refuse(INVALID_CONTEXT, "nobody holds the device");
    auto context = at->second;
    if (--context->retained == 0) {
        d.primary.erase(at);
        d.destroy(context);
    }
    return context->lost;
}

CUDA(cuCtxSetCurrent, (void* handle)) {
    BEGIN(INITIALISED);
    auto context = find(d.contexts, handle);
    if (handle && !context) return call.refuse(INVALID_CONTEXT, "there is no such context");
    if (handle && !context->live) return call.refuse(CONTEXT_IS_DESTROYED, "the context is no more");
    current = u64(handle);
    return handle ? context->lost : SUCCESS;
}

CUDA(cuCtxSynchronize, ()) {
    BEGIN(CONTEXT);
    if (d.captures(*call.context)) return call.refuse(CAPTURE_UNSUPPORTED, "a stream of the context is being captured");
    for (auto all = d.busy(call.context.get()); !all.empty(); all = d.busy(call.context.get())) {
        for (const auto& stream : all) {
            d.wait(stream, stream->asked);
            d.host.join(stream->clock);
        }
    }
    return call.context->lost;
}

// ---- memory

CUDA(cuMemAlloc_v2, (u64* address, size_t bytes)) {
    BEGIN(CONTEXT);
    UNCAPTURED();
    if (bytes == 0) return call.refuse(INVALID_VALUE, "no bytes");
    u64 used = d.used(false, call.context.get());
    if (bytes > d.settings.memory || used + bytes > d.settings.memory) return OUT_OF_MEMORY;
    auto room = (unsigned char*)aligned_alloc(256, (bytes + 2 * GUARD + 255) / 256 * 256);
    if (!room) return OUT_OF_MEMORY;
    *address = d.next_address;
    d.next_address += (bytes + 511) / 512 * 512 + (1 << 20);
    d.memories[*address] = make_shared<Memory>(*address, bytes, false, call.context, room);
    return SUCCESS;
}

CUDA(cuMemHostAlloc, (void** address, size_t bytes, unsigned flags)) {
    BEGIN(CONTEXT);
    UNCAPTURED();
    if (bytes == 0 || flags > 7) return call.refuse(INVALID_VALUE, "no bytes, or flags that there are not");
    if (bytes > d.settings.pinned || d.used(true, nullptr) + bytes > d.settings.pinned) return OUT_OF_MEMORY;
    auto room = (unsigned char*)aligned_alloc(4096, (bytes + 2 * GUARD + 4095) / 4096 * 4096);
    if (!room) return OUT_OF_MEMORY;
    auto memory = make_shared<Memory>(u64(room + GUARD), bytes, true, call.context, room);
    *address = memory->bytes();
    d.memories[memory->address] = memory;
    return SUCCESS;
}

namespace {

Result give_back(Call& call, u64 address, bool pinned) {
    auto at = call.d.memories.find(address);
    if (at == call.d.memories.end() || at->second->pinned != pinned) return call.refuse(INVALID_VALUE, "there is no memory that begins there");
    auto memory = at->second;
    if (memory->context != call.context) return call.refuse(INVALID_VALUE, "the memory is another context's");
    if (!memory->sound()) object("%s: somebody wrote beside the memory", call.name);
    for (const Access& access : memory->accesses) {
        if (!call.d.host.has(access.stream, access.number)) {
            object("%s: nobody waited for `%s`, which uses the memory", call.name, access.what);
            break;
        }
    }
    memory->live = false;
    call.d.memories.erase(at);
    return SUCCESS;
}

} // namespace

CUDA(cuMemFree_v2, (u64 address)) {
    BEGIN(CONTEXT);
    UNCAPTURED();
    return give_back(call, address, false);
}

CUDA(cuMemFreeHost, (void* address)) {
    BEGIN(CONTEXT);
    UNCAPTURED();
    return give_back(call, u64(address), true);
}

CUDA(cuMemGetInfo_v2, (size_t* free, size_t* total)) {
    BEGIN(CONTEXT);
    *total = d.settings.memory;
    *free = d.settings.memory - std::min(d.settings.memory, d.used(false, call.context.get()));
    return SUCCESS;
}

namespace {

// The device side of a copy, and the host side if it is pinned.
Result spans(Call& call, Work& work, u64 address, const void* host, size_t bytes, bool in) {
    auto memory = call.d.memory_at(address);
    if (!memory || memory->pinned) return call.refuse(INVALID_VALUE, "that is no device memory");
    if (memory->context != call.context) return call.refuse(INVALID_VALUE, "the memory is another context's");
    u64 from = address - memory->address;
    if (bytes > memory->size - from) return call.refuse(INVALID_VALUE, "more bytes than the memory has");
    work.spans.push_back({memory, from, from + bytes, in});
    auto pinned = call.d.memory_at(u64(host));
    if (!pinned) return SUCCESS;
    from = u64(host) - pinned->address;
    if (bytes > pinned->size - from) return call.refuse(INVALID_VALUE, "more bytes than the pinned memory has");
    work.spans.push_back({pinned, from, from + bytes, !in});
    return SUCCESS;
}

} // namespace

CUDA(cuMemcpyHtoDAsync_v2, (u64 to, const void* from, size_t bytes, void* handle)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    if (bytes == 0) return SUCCESS;
    auto work = make_shared<Work>(Work{Work::COPY_IN, "copy to the device"});
    if (Result code = spans(call, *work, to, from, bytes, true)) return code;
    if (work->spans.size() == 1) {
        if (stream->capture) return call.uncapturable(*stream, "memory that is not pinned cannot be captured");
        work->params.assign((const unsigned char*)from, (const unsigned char*)from + bytes);
    }
    return call.ask(stream, work);
}

CUDA(cuMemcpyDtoHAsync_v2, (void* to, u64 from, size_t bytes, void* handle)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    if (bytes == 0) return SUCCESS;
    auto work = make_shared<Work>(Work{Work::COPY_OUT, "copy from the device"});
    if (Result code = spans(call, *work, from, to, bytes, false)) return code;
    if (work->spans.size() > 1) return call.ask(stream, work);
    if (stream->capture) return call.uncapturable(*stream, "memory that is not pinned cannot be captured");
    work->pageable = to;
    d.ask(stream, work);
    Clock clock = stream->clock;
    d.wait(stream, stream->asked);
    d.host.join(clock);
    return call.context->lost;
}

// ---- kernels

namespace {

string without_comments(const char* text) {
    string plain;
    for (const char* c = text; *c;) {
        if (c[0] == '/' && c[1] == '/') {
            while (*c && *c != '\n') ++c;
        } else if (c[0] == '/' && c[1] == '*') {
            const char* end = strstr(c + 2, "*/");
            c = end ? end + 2 : c + strlen(c);
        } else {
            plain += *c++;
        }
    }
    return plain;
}

// The rest of the line that begins with a directive.
string directive(const string& text, const char* name) {
    size_t at = text.find(name);
    if (at == string::npos) return "";
    at += strlen(name);
    return text.substr(at, text.find('\n', at) - at);
}

// The bytes of the shared-memory arrays that a kernel names.
u64 shared_bytes(const string& text, const string& body) {
    u64 all = 0;
    for (size_t at = text.find(".shared .align"); at != string::npos; at = text.find(".shared .align", at + 1)) {
        size_t open = text.find('[', at), end = text.find(';', at);
        if (open > end) continue;
        size_t first = text.rfind(' ', open) + 1;
        if (body.find(text.substr(first, open - first)) != string::npos) all += strtoull(text.c_str() + open + 1, nullptr, 10);
    }
    return all;
}

struct Declared {
    string parameters, body; // the body starts at its directives
};

bool declared(const string& text, const string& name, Declared& found) {
    size_t at = text.find(".entry " + name + "(");
    if (at == string::npos) return false;
    size_t open = text.find('(', at), close = text.find(')', open), end = text.find(".entry ", close);
    found = {text.substr(open + 1, close - open - 1), text.substr(close + 1, end == string::npos ? end : end - close - 1)};
    return true;
}

} // namespace

CUDA(cuModuleLoadDataEx, (void** handle, const void* image, unsigned count, int* options, void** values)) {
    BEGIN(CONTEXT);
    UNCAPTURED();
    char* log = nullptr;
    size_t room = 0;
    void** written = nullptr;
    for (unsigned i = 0; i < count; ++i) {
        if (options[i] == 5) log = (char*)values[i];
        else if (options[i] == 6) room = size_t(uint32_t(uintptr_t(values[i]))), written = &values[i];
        else return call.refuse(INVALID_VALUE, "the stand-in knows no such option");
    }
    auto fails = [&](Result code, const string& why) {
        if (log && room) snprintf(log, room, "%s", why.c_str());
        if (written) *written = (void*)std::min(room, why.size() + 1);
        return code;
    };
    if (written) *written = nullptr;
    string text = without_comments((const char*)image);
    string version = directive(text, ".version "), target = directive(text, ".target sm_");
    if (version.empty() || target.empty() || directive(text, ".address_size ").compare(0, 2, "64")) {
        return fails(INVALID_PTX, "ptxas fatal: it is no PTX");
    }
    int ptx = int(strtod(version.c_str(), nullptr) * 10 + 0.5), capability = atoi(target.c_str());
    if (ptx > d.settings.ptx()) return fails(UNSUPPORTED_PTX_VERSION, "ptxas fatal: unsupported .version " + version);
    bool alone = target.find('a') != string::npos;
    if (alone ? capability != d.settings.capability : capability > d.settings.capability) {
        return fails(INVALID_PTX, "ptxas fatal: SM version specified by .target is higher than default SM version assumed");
    }
    for (size_t at = text.find(".entry "); at != string::npos; at = text.find(".entry ", at + 1)) {
        string name = text.substr(at + 7, text.find('(', at) - at - 7);
        Declared found;
        if (declared(text, name, found) && shared_bytes(text, found.body) > 48 << 10) {
            object("%s: `%s` has more shared memory than a block may have", __func__, name.c_str());
            return fails(INVALID_PTX, "ptxas error: entry function '" + name + "' uses too much shared data");
        }
    }
    auto module = make_shared<Module>(Module{text, call.context});
    u64 number = d.handle();
    d.modules[number] = module;
    *handle = (void*)number;
    return SUCCESS;
}

CUDA(cuModuleUnload, (void* handle)) {
    BEGIN(CONTEXT);
    UNCAPTURED();
    FIND(module, modules, handle);
    for (auto at = d.functions.begin(); at != d.functions.end();) at = at->second->module == module ? d.functions.erase(at) : std::next(at);
    d.modules.erase(u64(handle));
    return SUCCESS;
}

CUDA(cuModuleGetFunction, (void** handle, void* owner, const char* name)) {
    BEGIN(CONTEXT);
    FIND(module, modules, owner);
    Declared found;
    if (!declared(module->text, name, found)) return NOT_FOUND;
    auto function = make_shared<Function>(Function{name, call.context, module});
    if (emulation_entry(("0." + function->name).c_str(), &function->pointers, &function->writes, &function->params)) {
        return call.refuse(NOT_FOUND, "the PTX has an entry that the sources have not");
    }
    uint32_t pointers = 0, params = 0;
    for (size_t at = found.parameters.find(".param"); at != string::npos;) {
        size_t end = found.parameters.find(".param", at + 1);
        string one = found.parameters.substr(at, end == string::npos ? end : end - at);
        size_t bytes = one.find('[');
        if (bytes != string::npos) params += uint32_t(atoi(one.c_str() + bytes + 1));
        else if (one.find(".u64") != string::npos && params == 0) ++pointers;
        else return call.refuse(NOT_FOUND, "the PTX has a parameter that is neither pointer nor the last struct");
        at = end;
    }
    if (pointers != function->pointers || params != function->params) {
        return call.refuse(NOT_FOUND, "the PTX takes other parameters than the sources; was it made anew?");
    }
    for (const char* limit : {".maxntid ", ".reqntid "}) {
        string sizes = directive(found.body, limit);
        unsigned x = 0, y = 1, z = 1;
        if (sscanf(sizes.c_str(), "%u, %u, %u", &x, &y, &z) > 0) function->max_threads = u64(x) * y * z;
    }
    u64 number = d.handle();
    d.functions[number] = function;
    *handle = (void*)number;
    return SUCCESS;
}

CUDA(cuLaunchKernel, (void* entry, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                      unsigned shared, void* handle, void** parameters, void** extra)) {
    BEGIN(CONTEXT);
    FIND(function, functions, entry);
    FIND(stream, streams, handle);
    if (extra || shared) return call.refuse(INVALID_VALUE, "the stand-in knows neither packed arguments nor dynamic shared memory");
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_x > 0x7fffffff || grid_y > 65535 || grid_z > 65535) {
        return call.refuse(INVALID_VALUE, "a grid has 1 to 2^31 - 1 by 65,535 by 65,535 blocks");
    }
    u64 threads = u64(block_x) * block_y * block_z;
    if (threads == 0 || block_x > 1024 || block_y > 1024 || block_z > 64 || threads > function->max_threads) {
        return call.refuse(INVALID_VALUE, "the block has more threads than the kernel was compiled for, or none");
    }
    auto work = make_shared<Work>(Work{Work::LAUNCH, "", {}, function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}});
    work->what = work->function->name.c_str();
    for (uint32_t i = 0; i < function->pointers; ++i) {
        u64 address;
        memcpy(&address, parameters[i], 8);
        auto memory = d.memory_at(address);
        if (!memory || memory->context != call.context) return call.refuse(INVALID_VALUE, "an argument is no memory of this device");
        if (address % 16) return call.refuse(INVALID_VALUE, "an argument is not aligned to sixteen bytes");
        u64 from = address - memory->address;
        work->spans.push_back({memory, from, memory->size, bool(function->writes >> i & 1)});
    }
    auto params = (const unsigned char*)parameters[function->pointers];
    work->params.assign(params, params + function->params);
    return call.ask(stream, work);
}

// ---- streams and events

CUDA(cuStreamCreate, (void** handle, unsigned flags)) {
    BEGIN(CONTEXT);
    if (flags > 1) return call.refuse(INVALID_VALUE, "there are no such flags");
    auto stream = make_shared<Stream>();
    stream->handle = d.handle(), stream->context = call.context;
    d.streams[stream->handle] = stream;
    *handle = (void*)stream->handle;
    return SUCCESS;
}

CUDA(cuStreamDestroy_v2, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    d.closed.push_back(stream);
    d.streams.erase(stream->handle);
    return SUCCESS;
}

CUDA(cuStreamSynchronize, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    if (stream->capture) return call.uncapturable(*stream, "the stream is being captured");
    UNCAPTURED();
    Clock clock = stream->clock;
    d.wait(stream, stream->asked);
    d.host.join(clock);
    return call.context->lost;
}

CUDA(cuStreamQuery, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    if (stream->capture) return call.uncapturable(*stream, "the stream is being captured");
    UNCAPTURED();
    if (!stream->queue.empty()) {
        d.run_first(stream); // otherwise polling would never end
        return call.context->lost ? call.context->lost : NOT_READY;
    }
    d.host.join(stream->clock);
    return SUCCESS;
}

CUDA(cuStreamWaitEvent, (void* handle, void* what, unsigned flags)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    FIND(event, events, what);
    if (flags > 1) return call.refuse(INVALID_VALUE, "there are no such flags");
    auto work = make_shared<Work>(Work{Work::WAIT, "wait"});
    work->event = event, work->external = flags == 1;
    if (stream->capture && !work->external) {
        if (event->captured && event->stream == stream) return SUCCESS; // which is the order anyway
        return call.uncapturable(*stream, "it waits for what is not captured", CAPTURE_ISOLATION);
    }
    if (event->captured) return call.refuse(CAPTURE_UNSUPPORTED, "the stand-in captures one stream, and none that waits for it");
    if (!stream->capture && work->external) return call.refuse(INVALID_VALUE, "nothing is captured that it could be external to");
    return call.ask(stream, work);
}

CUDA(cuEventCreate, (void** handle, unsigned flags)) {
    BEGIN(CONTEXT);
    if (flags > 3) return call.refuse(INVALID_VALUE, "the stand-in has no such flags");
    auto event = make_shared<Event>();
    event->handle = d.handle(), event->context = call.context, event->timed = !(flags & 2);
    d.events[event->handle] = event;
    *handle = (void*)event->handle;
    return SUCCESS;
}

CUDA(cuEventDestroy_v2, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(event, events, handle);
    d.events.erase(event->handle);
    return SUCCESS;
}

namespace {

Result record(Call& call, void* what, void* handle, unsigned flags) {
    Driver& d = call.d;
    FIND(event, events, what);
    FIND(stream, streams, handle);
    if (flags > 1) return call.refuse(INVALID_VALUE, "there are no such flags");
    auto work = make_shared<Work>(Work{Work::RECORD, "record"});
    work->event = event, work->external = flags == 1;
    if (work->external && !stream->capture) return call.refuse(INVALID_VALUE, "nothing is captured that it could be external to");
    if (stream->capture && !work->external) {
        if (stream->capture->broken) return CAPTURE_INVALIDATED;
        event->captured = true, event->recorded = false, event->stream = stream;
        return SUCCESS;
    }
    return call.ask(stream, work);
}

} // namespace

CUDA(cuEventRecord, (void* event, void* stream)) {
    BEGIN(CONTEXT);
    return record(call, event, stream, 0);
}

CUDA(cuEventRecordWithFlags, (void* event, void* stream, unsigned flags)) {
    BEGIN(CONTEXT);
    return record(call, event, stream, flags);
}

CUDA(cuEventSynchronize, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(event, events, handle);
    if (event->captured) return call.refuse(CAPTURED_EVENT, "it was captured, not recorded");
    UNCAPTURED();
    if (!event->recorded) return SUCCESS;
    Clock clock = event->clock;
    d.wait(event->stream, event->number);
    d.host.join(clock);
    return call.context->lost;
}

CUDA(cuEventQuery, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(event, events, handle);
    if (event->captured) return call.refuse(CAPTURED_EVENT, "it was captured, not recorded");
    UNCAPTURED();
    if (!event->recorded) return SUCCESS;
    if (event->stream->done < event->number) {
        d.run_first(event->stream); // otherwise polling would never end
        return call.context->lost ? call.context->lost : NOT_READY;
    }
    d.host.join(event->clock);
    return SUCCESS;
}

namespace {

Result elapsed(Call& call, float* milliseconds, void* from, void* to) {
    Driver& d = call.d;
    FIND(start, events, from);
    FIND(end, events, to);
    if (start->captured || end->captured) return call.refuse(CAPTURED_EVENT, "it was captured, not recorded");
    if (!start->timed || !end->timed) return call.refuse(INVALID_HANDLE, "it was created without time");
    if (!start->recorded || !end->recorded) return call.refuse(INVALID_HANDLE, "it was not recorded");
    if (!start->done || !end->done) return NOT_READY;
    *milliseconds = float(end->milliseconds - start->milliseconds);
    return SUCCESS;
}

} // namespace

CUDA(cuEventElapsedTime, (float* milliseconds, void* from, void* to)) {
    BEGIN(CONTEXT);
    return elapsed(call, milliseconds, from, to);
}

CUDA(cuEventElapsedTime_v2, (float* milliseconds, void* from, void* to)) {
    BEGIN(CONTEXT);
    return elapsed(call, milliseconds, from, to);
}

// ---- graphs

CUDA(cuStreamBeginCapture_v2, (void* handle, int mode)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    if (mode < 0 || mode > 2) return call.refuse(INVALID_VALUE, "there is no such mode");
    if (stream->capture) return call.refuse(ILLEGAL_STATE, "the stream is being captured already");
    stream->capture.reset(new Capture{mode, std::this_thread::get_id()});
    return SUCCESS;
}

CUDA(cuStreamEndCapture, (void* handle, void** graph)) {
    BEGIN(CONTEXT);
    FIND(stream, streams, handle);
    *graph = nullptr;
    if (!stream->capture) return call.refuse(ILLEGAL_STATE, "the stream is not being captured");
    if (stream->capture->mode != 2 && stream->capture->thread != std::this_thread::get_id()) {
        return call.refuse(CAPTURE_WRONG_THREAD, "another thread began the capture");
    }
    auto capture = std::move(stream->capture);
    if (capture->broken) return CAPTURE_INVALIDATED;
    u64 number = d.handle();
    d.graphs[number] = make_shared<Graph>(Graph{call.context, std::move(capture->works)});
    *graph = (void*)number;
    return SUCCESS;
}

CUDA(cuGraphInstantiateWithFlags, (void** executable, void* handle, unsigned long long flags)) {
    BEGIN(CONTEXT);
    FIND(graph, graphs, handle);
    if (flags) return call.refuse(INVALID_VALUE, "the stand-in has no such flags");
    u64 number = d.handle();
    d.executables[number] = make_shared<Graph>(Graph{call.context, graph->works});
    *executable = (void*)number;
    return SUCCESS;
}

CUDA(cuGraphLaunch, (void* handle, void* where)) {
    BEGIN(CONTEXT);
    FIND(executable, executables, handle);
    FIND(stream, streams, where);
    if (stream->capture) return call.uncapturable(*stream, "the stand-in captures no graph in another");
    stream->clock.join(executable->clock);
    for (const auto& work : executable->works) {
        executable->number = d.ask(stream, work, {executable->stream, executable->number});
        executable->stream = stream;
    }
    executable->clock = stream->clock;
    return SUCCESS;
}

CUDA(cuGraphDestroy, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(graph, graphs, handle);
    d.graphs.erase(u64(handle));
    return SUCCESS;
}

CUDA(cuGraphExecDestroy, (void* handle)) {
    BEGIN(CONTEXT);
    FIND(executable, executables, handle);
    d.executables.erase(u64(handle));
    return SUCCESS;
}
