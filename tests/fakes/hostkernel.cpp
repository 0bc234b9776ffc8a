// Runs a CUDA kernel's own source on the processor, thread after thread, for tests/fakes/libcuda.c.
// KERNEL is the path of the source.
#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <tuple>

struct Position { unsigned x, y, z; };
static thread_local Position blockIdx, blockDim, threadIdx;
using std::max;
using std::min;
#define __device__
#define __global__
#define __forceinline__ inline
#include KERNEL

// Takes the next argument out of a buffer in which each lies at a multiple of its size.
template <typename T>
static T take(const char *buffer, size_t &at) {
  at = (at + sizeof(T) - 1) / sizeof(T) * sizeof(T);
  T value;
  std::memcpy(&value, buffer + at, sizeof value);
  at += sizeof value;
  return value;
}

template <typename... T>
static void run(void (*kernel)(T...), const void *buffer, const unsigned *grid,
                const unsigned *block) {
  size_t at = 0;
  std::tuple<T...> arguments{take<T>(static_cast<const char *>(buffer), at)...};
  blockDim = {block[0], block[1], block[2]};
  for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
      for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
        for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++) std::apply(kernel, arguments);
}

// What the stand-in's cuModuleGetFunction looks for.
extern "C" void host_vigia_frame(const void *buffer, const unsigned *grid, const unsigned *block) {
  run(vigia_frame, buffer, grid, block);
}
