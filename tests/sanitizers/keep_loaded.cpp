// Linked into programs that are built with the address sanitizer: Open MPI unloads its components at the end,
// and a leak of code that is no longer there has no name that a suppression could match. So libraries stay.
extern "C" int dlclose(void* /*library*/) { return 0; }
