/* libclang-probe LIBRARY: exits 0 if the library loads, has the interface that bindgen uses, and finds the compiler's own headers. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unsaved {
    const char *name;
    const char *content;
    unsigned long length;
};

int main(int argc, char **argv) {
    const char *source = "#include <stddef.h>\n#include <stdint.h>\nsize_t size;\n";
    struct unsaved file = {"probe.c", source, strlen(source)};
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (library == NULL) {
        fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "usage: libclang-probe LIBRARY");
        return 1;
    }
    void *(*create)(int, int) = (void *(*)(int, int))dlsym(library, "clang_createIndex");
    void *(*parse)(void *, const char *, const char *const *, int, struct unsaved *, unsigned, unsigned) =
        (void *(*)(void *, const char *, const char *const *, int, struct unsaved *, unsigned, unsigned))dlsym(library, "clang_parseTranslationUnit");
    unsigned (*diagnostics)(void *) = (unsigned (*)(void *))dlsym(library, "clang_getNumDiagnostics");
    if (create == NULL || parse == NULL || diagnostics == NULL) {
        fprintf(stderr, "%s: not the C interface of libclang\n", argv[1]);
        return 1;
    }
    void *unit = parse(create(0, 1), "probe.c", NULL, 0, &file, 1, 0);
    return unit != NULL && diagnostics(unit) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
