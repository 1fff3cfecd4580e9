/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/module.h"

#include <dlfcn.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"

/* Seen from the folder of the program: installed, and in the build tree for programs and for tests. */
static const char *const places[] = {ASHLAR_MODULE_PATH, "../../modules", "modules", "../modules"};

/* The file in that folder, owned; NULL: it is not there. */
static char *find_in(const char *folder, const char *file_name)
{
    g_autofree char *path = g_build_filename(folder, file_name, NULL);

    return g_file_test(path, G_FILE_TEST_EXISTS) ? TAKE(path) : NULL;
}

/* The file of the module, owned; NULL: there is none. */
static char *module_find(const char *name)
{
    g_autofree char *file_name = g_strdup_printf("ashlar-%s.so", name);
    const char *directory = g_getenv("ASHLAR_MODULE_DIR");

    if (directory)
        return find_in(directory, file_name);
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *here = program ? g_path_get_dirname(program) : NULL;
    for (unsigned i = 0; here && i < G_N_ELEMENTS(places); i++) {
        g_autofree char *folder = g_canonicalize_filename(places[i], here);
        char *path = find_in(folder, file_name);

        if (path)
            return path;
    }
    return NULL;
}

const struct module_head *module_table(const char *name, const char *symbol, const char *package, struct error **err)
{
    g_autofree char *path = module_find(name);
    const struct module_head *head = NULL;

    if (!path) {
        error_set(err, "Module 'ashlar-%s.so' is not there; it needs %s", name, package);
        return NULL;
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        error_set(err, "Module 'ashlar-%s.so' cannot be loaded; it needs %s: %s", name, package, dlerror());
        return NULL;
    }
    head = dlsym(handle, symbol);
    if (!head)
        error_set(err, "Module '%s' has no '%s'", path, symbol);
    else if (strcmp(head->version, ASHLAR_VERSION) != 0) {
        error_set(err, "Module '%s' is of version %s, but the program of %s", path, head->version, ASHLAR_VERSION);
        head = NULL;
    }
    (void)dlclose(handle); /* it stays loaded, by RTLD_NODELETE */
    return head;
}
