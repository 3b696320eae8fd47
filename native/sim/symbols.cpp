// What is the function at this address called, and where is its library's thread-local storage?
#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch.h"

namespace syncbn::sim {

namespace {

struct Module {
  uintptr_t address;  // looked for
  bool found;
  std::string path;
  uintptr_t base;
  ThreadStorage storage;
};

int visit(dl_phdr_info *info, size_t, void *argument) {
  Module &module = *static_cast<Module *>(argument);
  ThreadStorage storage;
  bool inside = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) &header = info->dlpi_phdr[i];
    const uintptr_t start = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && module.address >= start && module.address < start + header.p_memsz) inside = true;
    if (header.p_type == PT_TLS) storage = {info->dlpi_tls_data, header.p_memsz};
  }
  if (!inside) return 0;
  module.found = true;
  module.path = *info->dlpi_name ? info->dlpi_name : "/proc/self/exe";
  module.base = info->dlpi_addr;
  module.storage = storage;
  return 1;
}

Module module_of(const void *address) {
  Module module = {reinterpret_cast<uintptr_t>(address), false, "", 0, {}};
  dl_iterate_phdr(visit, &module);
  return module;
}

// A file's bytes, without reading those that nobody looks at: a test program has 17 MB and many kernels to name.
class MappedFile {
 public:
  explicit MappedFile(const std::string &path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    struct stat status;
    if (fstat(file, &status) == 0 && status.st_size > 0) {
      void *mapped = mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
      if (mapped != MAP_FAILED) {
        data_ = static_cast<const char *>(mapped);
        size_ = static_cast<size_t>(status.st_size);
      }
    }
    close(file);
  }
  ~MappedFile() {
    if (data_) munmap(const_cast<char *>(data_), size_);
  }
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  const char *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const char *data_ = nullptr;
  size_t size_ = 0;
};

// The mangled name from .symtab, which holds local functions too; empty in a stripped file.
std::string symbol_at(const MappedFile &file, uintptr_t offset) {
  if (file.size() < sizeof(Elf64_Ehdr)) return "";
  const auto *elf = reinterpret_cast<const Elf64_Ehdr *>(file.data());
  const auto *sections = reinterpret_cast<const Elf64_Shdr *>(file.data() + elf->e_shoff);
  for (int s = 0; s < elf->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const char *names = file.data() + sections[sections[s].sh_link].sh_offset;
    const auto *symbols = reinterpret_cast<const Elf64_Sym *>(file.data() + sections[s].sh_offset);
    for (size_t i = 0; i < sections[s].sh_size / sizeof(Elf64_Sym); ++i) {
      if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_value == offset) {
        return names + symbols[i].st_name;
      }
    }
  }
  return "";
}

// "void ns::(anonymous namespace)::kernel<float>(ns::Params)" -> "ns::kernel<float>"
std::string readable(std::string name) {
  const std::string anonymous = "(anonymous namespace)::";
  for (size_t at; (at = name.find(anonymous)) != std::string::npos;) name.erase(at, anonymous.size());
  size_t end = name.size();
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0) {
      end = i;
      break;
    }
  }
  name.erase(end);
  depth = 0;
  for (size_t i = name.size(); i > 0; --i) {
    if (name[i - 1] == '>') ++depth;
    if (name[i - 1] == '<') --depth;
    if (name[i - 1] == ' ' && depth == 0) return name.substr(i);
  }
  return name;
}

}  // namespace

std::string function_name(const void *address) {
  const Module module = module_of(address);
  std::string mangled;
  if (module.found) mangled = symbol_at(MappedFile(module.path), module.address - module.base);
  if (mangled.empty()) return format("kernel@%p", address);
  int status = 0;
  char *demangled = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  const std::string name = readable(status == 0 ? demangled : mangled);
  free(demangled);
  return name;
}

ThreadStorage thread_storage(const void *address) { return module_of(address).storage; }

}  // namespace syncbn::sim
