#include "comigs/model/recording.hpp"

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"

#ifdef COMIGS_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace comigs::model {

#ifdef COMIGS_CUDA

namespace allocator = c10::cuda::CUDACachingAllocator;

namespace {

void warn_not_recorded(const std::exception& error) {
  spdlog::warn("passes are not recorded as CUDA graphs and take longer to launch: {}", first_line(error));
}

}  // namespace

// A private pool of LibTorch's allocator. A graph's kernels have the addresses of its tensors in them: nobody
// else may get these, and the pool gives nothing back as long as it lives.
class RecordingMemory::Pool {
 public:
  explicit Pool(c10::DeviceIndex device) : device_(device), id_{0, ++pools} {
    allocator::createOrIncrefPool(device_, id_);
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { allocator::releasePool(device_, id_); }

  // While it lives, what is allocated for this process's stream comes from the pool.
  class Use {
   public:
    explicit Use(const Pool& pool) : pool_(pool) {
      const cudaStream_t own = pool_.stream();
      allocator::beginAllocateToPool(pool_.device_, pool_.id_,
                                     [own](cudaStream_t stream) { return stream == own; });
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use() {
      allocator::endAllocateToPool(pool_.device_, pool_.id_);
      allocator::releasePool(pool_.device_, pool_.id_);  // which beginning counted as one more to hold it
    }

   private:
    const Pool& pool_;
  };

  [[nodiscard]] cudaStream_t stream() const { return c10::cuda::getCurrentCUDAStream(device_).stream(); }

 private:
  static inline c10::MempoolId_t::second_type pools = 0;

  c10::DeviceIndex device_;
  c10::MempoolId_t id_;
};

class Recording::Graph {
 public:
  explicit Graph(RecordingMemory::Pool& pool) : pool_(pool) {}
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
  }

  void run(const std::function<void()>& work) {
    switch (state_) {
      case State::fresh:  // libraries load their kernels and get their buffers
        make_room();
        do_now(work);
        state_ = State::warm;
        return;
      case State::warm:
        make_room();
        state_ = record(work) ? State::recorded : State::as_it_is;
        return run(work);
      case State::recorded:
        C10_CUDA_CHECK(cudaGraphLaunch(graph_, pool_.stream()));
        return;
      case State::as_it_is:
        return do_now(work);
    }
  }

 private:
  enum class State { fresh, warm, recorded, as_it_is };

  // Where memory is short the allocator does not look for what it could give back while a pool is in use.
  static void make_room() { allocator::emptyCache(); }

  void do_now(const std::function<void()>& work) const {
    const RecordingMemory::Pool::Use use(pool_);
    work();
  }

  bool record(const std::function<void()>& work) {
    try {
      const RecordingMemory::Pool::Use use(pool_);
      const Captured captured(pool_.stream(), work);
      C10_CUDA_CHECK(cudaGraphInstantiate(&graph_, captured.graph, 0));
      return true;
    } catch (const std::exception& error) {
      warn_not_recorded(error);
      return false;
    }
  }

  // The kernels that `work` queues, none of them run. Other threads, those of an MPI library among them, may
  // call what they like meanwhile.
  struct Captured {
    Captured(cudaStream_t stream, const std::function<void()>& work) {
      C10_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      try {
        work();
      } catch (...) {
        if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
        (void)cudaGetLastError();
        throw;
      }
      C10_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    }
    Captured(const Captured&) = delete;
    Captured& operator=(const Captured&) = delete;
    ~Captured() { cudaGraphDestroy(graph); }

    cudaGraph_t graph = nullptr;
  };

  RecordingMemory::Pool& pool_;
  State state_ = State::fresh;
  cudaGraphExec_t graph_ = nullptr;
};

// An allocator without private pools (PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync) refuses.
RecordingMemory::RecordingMemory(const c10::Device& device) {
  if (!device.is_cuda()) return;
  try {
    pool_ = std::make_unique<Pool>(device.index());
  } catch (const std::exception& error) {
    warn_not_recorded(error);
  }
}

Recording::Recording(RecordingMemory& memory)
    : graph_(memory.pool_ ? std::make_unique<Graph>(*memory.pool_) : nullptr) {}

void Recording::run(const std::function<void()>& work) { return graph_ ? graph_->run(work) : work(); }

#else

class RecordingMemory::Pool {};
class Recording::Graph {};

RecordingMemory::RecordingMemory(const c10::Device&) {}
Recording::Recording(RecordingMemory&) {}
void Recording::run(const std::function<void()>& work) { work(); }

#endif

RecordingMemory::~RecordingMemory() = default;
Recording::Recording(Recording&&) noexcept = default;
Recording::~Recording() = default;

}  // namespace comigs::model
