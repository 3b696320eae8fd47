// What a launch is, and how its blocks get onto OS threads.
#ifndef SYNCBN_SIM_LAUNCH_H
#define SYNCBN_SIM_LAUNCH_H

#include <condition_variable>

#include "sim.h"

namespace syncbn::sim {

// A kernel as the host program registers it before its first launch.
struct Kernel {
  const void *address;
  void (*call)(const void *kernel, const void *params);
  size_t params_size;
  // The address of a thread-local variable of the kernel's library. Asking for it gives the calling thread that
  // library's thread-local storage, where shared memory is.
  void *(*touch)();
  std::string name;
};

struct Launch {
  std::shared_ptr<Kernel> kernel;
  std::vector<char> params;
  dim3 grid, block;
  size_t dynamic_shared;  // bytes
  bool cooperative;
  int device;

  unsigned blocks() const { return grid.x * grid.y * grid.z; }
  unsigned threads() const { return block.x * block.y * block.z; }
};

// One execution of a launch: the state that its blocks share.
struct GridRun {
  explicit GridRun(const Launch &launch) : launch(launch) {}

  const Launch &launch;
  std::atomic<unsigned> next{0};
  std::atomic<bool> failed{false};

  // The grid barrier of a cooperative launch.
  std::mutex mutex;
  std::condition_variable opened;
  unsigned arrived = 0, finished = 0;
  unsigned long generation = 0;

  // The first failure poisons the device and ends the other blocks.
  void fail(cudaError_t error, const char *text);
  // False where the grid has failed meanwhile.
  bool meet();
  void finish_block();
};

// The OS threads of one stream (or of one branch of a graph) that run blocks: the stream's own and helpers, which are
// started on demand and end with the crew.
class Crew {
 public:
  Crew();
  ~Crew();
  Crew(const Crew &) = delete;
  Crew &operator=(const Crew &) = delete;
  // Calls work() on `count` threads at once, the calling one among them. Returns when all have returned.
  void run(unsigned count, const std::function<void()> &work);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

// Runs the grid to its end; failures poison the launch's device.
void run_grid(const Launch &launch, Crew &crew);

// Blocks of one multiprocessor that fit at a time: 2048 threads, 32 blocks, 227 KiB of dynamic shared memory.
int resident_blocks(unsigned threads, size_t dynamic_shared);

// One line a launch (device, name, grid, block) since the last reset.
void log_launch(const std::string &line);
std::string launches();
void reset_launches();

// A function's name from the symbol table of the file that it was loaded from, without return type and parameters.
std::string function_name(const void *address);
// The calling thread's thread-local storage of the library that `address` is in.
struct ThreadStorage {
  void *data = nullptr;
  size_t size = 0;
};
ThreadStorage thread_storage(const void *address);

}  // namespace syncbn::sim

#endif
