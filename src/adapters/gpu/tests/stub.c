/* A management library with two GPUs that do as the file CONTROL says: one word for the first GPU, the second is well.
   "healthy", "lost", "reset", "unknown", "gone", "hang", "nodriver", "xid <code> <serial>". */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_DRIVER = 9, TIMEOUT = 10, LOST = 15, RESET = 16, UNKNOWN = 999, INVALID = 2 };
enum { XID_EVENT = 8 };

struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct event { void *device; unsigned long long type, data; unsigned gpu, compute; };

static char cards[2];
static unsigned last_serial;

static void control(char *word, unsigned *code, unsigned *serial) {
    FILE *file = fopen(CONTROL, "r");
    strcpy(word, "healthy");
    if (file) {
        if (fscanf(file, "%31s %u %u", word, code, serial) < 1) strcpy(word, "healthy");
        fclose(file);
    }
}

static int is(const char *wanted) {
    char word[32];
    unsigned code, serial;
    control(word, &code, &serial);
    return strcmp(word, wanted) == 0;
}

static int first(void *device) { return device == &cards[0]; }

static int state(void *device) {
    if (is("hang")) {
        FILE *entries = fopen(CONTROL ".entries", "a");
        if (entries) { fputc('x', entries); fclose(entries); }
        while (is("hang")) usleep(2000);
    }
    if (!first(device)) return OK;
    if (is("lost")) return LOST;
    if (is("reset")) return RESET;
    if (is("unknown")) return UNKNOWN;
    return OK;
}

int nvmlInit_v2(void) { return is("nodriver") ? NO_DRIVER : OK; }
int nvmlShutdown(void) { return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = is("gone") ? 0 : 2; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (is("gone") || index > 1) return INVALID;
    *device = &cards[index];
    return OK;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-0000%d", first(device) ? 0 : 1);
    return OK;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    (void)device;
    snprintf(text, size, "Stub");
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 1000;
    memory->used = first(device) ? 250 : 0;
    return state(device);
}

int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *degrees) {
    (void)sensor;
    *degrees = 41;
    return first(device) ? state(device) : NOT_SUPPORTED;
}

int nvmlEventSetCreate(void **set) { *set = 0; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    /* The set stands for its device: the second one cannot be followed. */
    (void)types; (void)set;
    return first(device) ? OK : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, struct event *event, unsigned milliseconds) {
    char word[32];
    unsigned code = 0, serial = 0;
    (void)set; (void)milliseconds;
    control(word, &code, &serial);
    if (strcmp(word, "xid") != 0 || serial <= last_serial) return TIMEOUT;
    last_serial = serial;
    memset(event, 0, sizeof *event);
    event->device = &cards[0];
    event->type = XID_EVENT;
    event->data = code;
    return OK;
}
