// How work is recorded, against a CUDA runtime and an allocator that only write down what they are asked:
// this program has doubles of the functions that recording.cpp calls, which take the place of those in the
// libraries.
#include <boost/test/unit_test.hpp>

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "comigs/model/recording.hpp"

namespace {

using Calls = std::vector<std::string>;

// What was called, in order, and the one that fails.
Calls calls;
std::string failing;
int graphs = 0, executables = 0;  // that are there

cudaError_t call(const std::string& name) {
  calls.push_back(name);
  return name == failing ? cudaErrorUnknown : cudaSuccess;
}

int a_stream = 0, another_stream = 0, a_graph = 0, an_executable = 0;
template <class Handle>
Handle handle(int& of) {
  return reinterpret_cast<Handle>(&of);
}

}  // namespace

extern "C" {
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  BOOST_TEST((stream == handle<cudaStream_t>(a_stream)));
  BOOST_TEST((mode == cudaStreamCaptureModeThreadLocal));
  return call("begin capture");
}
cudaError_t cudaStreamEndCapture(cudaStream_t /*stream*/, cudaGraph_t* graph) {
  const cudaError_t code = call("end capture");
  if (code == cudaSuccess) *graph = handle<cudaGraph_t>(a_graph), ++graphs;
  return code;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long /*flags*/) {
  BOOST_TEST((graph == handle<cudaGraph_t>(a_graph)));
  const cudaError_t code = call("instantiate");
  if (code == cudaSuccess) *executable = handle<cudaGraphExec_t>(an_executable), ++executables;
  return code;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  BOOST_TEST((executable == handle<cudaGraphExec_t>(an_executable)));
  BOOST_TEST((stream == handle<cudaStream_t>(a_stream)));
  return call("launch");
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  if (graph != nullptr) --graphs;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t /*executable*/) {
  --executables;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
}

namespace c10::cuda {

CUDAStream getCurrentCUDAStream(DeviceIndex device) {
  return CUDAStream(c10::Stream(c10::Stream::DEFAULT, c10::Device(c10::kCUDA, device)));
}
cudaStream_t CUDAStream::stream() const { return handle<cudaStream_t>(a_stream); }
void c10_cuda_check_implementation(const std::int32_t code, const char* /*file*/, const char* /*function*/,
                                   const std::uint32_t /*line*/, const bool /*assertions*/) {
  if (code != 0) throw std::runtime_error("the runtime refuses");
}

}  // namespace c10::cuda

namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

[[noreturn]] void not_for_this() { throw std::logic_error("recordings do not ask for this"); }

// Of the pool: how often it is held, and whether it is in use.
class WrittenDown final : public allocator::CUDAAllocator {
 public:
  int held = 0;
  bool in_use = false, has_pools = true;

  void createOrIncrefPool(c10::DeviceIndex /*device*/, c10::MempoolId_t id,
                          std::shared_ptr<CUDAAllocator> /*of*/) override {
    if (!has_pools) throw std::runtime_error("no pools");
    BOOST_TEST(id.second > 0U);
    ++held;
  }
  void beginAllocateToPool(c10::DeviceIndex /*device*/, c10::MempoolId_t /*id*/,
                           std::function<bool(cudaStream_t)> filter) override {
    BOOST_TEST(!in_use);
    BOOST_TEST(filter(handle<cudaStream_t>(a_stream)));
    BOOST_TEST(!filter(handle<cudaStream_t>(another_stream)));
    in_use = true;
    ++held;
    calls.emplace_back("begin pool");
  }
  void endAllocateToPool(c10::DeviceIndex /*device*/, c10::MempoolId_t /*id*/) override {
    BOOST_TEST(in_use);
    in_use = false;
    calls.emplace_back("end pool");
  }
  void releasePool(c10::DeviceIndex /*device*/, c10::MempoolId_t /*id*/) override { --held; }
  void emptyCache(c10::MempoolId_t /*id*/) override { calls.emplace_back("make room"); }

  void* raw_alloc(std::size_t) override { not_for_this(); }
  void* raw_alloc_with_stream(std::size_t, cudaStream_t) override { not_for_this(); }
  void raw_delete(void*) override { not_for_this(); }
  void init(int) override { not_for_this(); }
  bool initialized() override { return true; }
  double getMemoryFraction(c10::DeviceIndex) override { not_for_this(); }
  void setMemoryFraction(double, c10::DeviceIndex) override { not_for_this(); }
  std::vector<allocator::StreamSegmentSize> getExpandableSegmentSizes(c10::DeviceIndex) override {
    not_for_this();
  }
  void enable(bool) override { not_for_this(); }
  bool isEnabled() const override { return true; }
  void cacheInfo(c10::DeviceIndex, std::size_t*) override { not_for_this(); }
  void* getBaseAllocation(void*, std::size_t*) override { not_for_this(); }
  void recordStream(const c10::DataPtr&, c10::cuda::CUDAStream) override { not_for_this(); }
  allocator::SnapshotInfo snapshot(c10::MempoolId_t, bool) override { not_for_this(); }
  allocator::ShareableHandle shareIpcHandle(void*) override { not_for_this(); }
  std::shared_ptr<void> getIpcDevPtr(std::string) override { not_for_this(); }
  void recordHistory(bool, allocator::CreateContextFn, std::size_t, allocator::RecordContext, bool,
                     const std::vector<std::string>&) override {
    not_for_this();
  }
  void attachOutOfMemoryObserver(allocator::OutOfMemoryObserver) override { not_for_this(); }
  void attachAllocatorTraceTracker(allocator::AllocatorTraceTracker) override { not_for_this(); }
  void enablePeerAccess(c10::DeviceIndex, c10::DeviceIndex) override { not_for_this(); }
  cudaError_t memcpyAsync(void*, int, const void*, int, std::size_t, cudaStream_t, bool) override {
    not_for_this();
  }
  std::shared_ptr<allocator::AllocatorState> getCheckpointState(c10::DeviceIndex, c10::MempoolId_t) override {
    not_for_this();
  }
  allocator::CheckpointDelta setCheckpointPoolState(c10::DeviceIndex,
                                                    std::shared_ptr<allocator::AllocatorState>) override {
    not_for_this();
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { not_for_this(); }
  void resetAccumulatedStats(c10::DeviceIndex) override { not_for_this(); }
  void resetPeakStats(c10::DeviceIndex) override { not_for_this(); }
  std::string name() override { return "written down"; }
  c10::DataPtr allocate(std::size_t) override { not_for_this(); }
  void copy_data(void*, const void*, std::size_t) const override { not_for_this(); }
};

struct Recorded {
  Recorded() {
    calls.clear();
    failing.clear();
    graphs = executables = 0;
    allocator::allocator.store(&pools);
  }
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;
  ~Recorded() {
    BOOST_TEST(pools.held == 0);
    BOOST_TEST(!pools.in_use);
    BOOST_TEST(graphs == 0);
    BOOST_TEST(executables == 0);
  }
  // What a call of `run` calls.
  Calls once(comigs::model::Recording& recording) {
    calls.clear();
    recording.run([] { calls.emplace_back("work"); });
    return calls;
  }
  WrittenDown pools;
};

const c10::Device card(c10::kCUDA, 0);
const Calls as_it_is = {"begin pool", "work", "end pool"},
            first = {"make room", "begin pool", "work", "end pool"},
            recorded = {"make room",   "begin pool",  "begin capture", "work",
                        "end capture", "instantiate", "end pool",      "launch"};

}  // namespace

using comigs::model::Recording;
using comigs::model::RecordingMemory;

BOOST_FIXTURE_TEST_SUITE(recordings, Recorded)

BOOST_AUTO_TEST_CASE(the_second_call_records_and_the_third_launches) {
  RecordingMemory memory(card);
  Recording recording(memory);
  BOOST_TEST(once(recording) == first, boost::test_tools::per_element());
  BOOST_TEST(once(recording) == recorded, boost::test_tools::per_element());
  for (int i = 0; i < 3; ++i)
    BOOST_TEST(once(recording) == Calls{"launch"}, boost::test_tools::per_element());
  BOOST_TEST(pools.held == 1);
  BOOST_TEST(graphs == 0);  // only what was made of it is kept
  BOOST_TEST(executables == 1);
}

BOOST_AUTO_TEST_CASE(one_memory_serves_several) {
  RecordingMemory memory(card);
  Recording one(memory), other(memory);
  for (Recording* recording : {&one, &other, &one, &other}) once(*recording);
  BOOST_TEST(pools.held == 1);
  BOOST_TEST(executables == 2);
  const Recording moved(std::move(one));
  BOOST_TEST(executables == 2);
}

BOOST_AUTO_TEST_CASE(what_cannot_be_recorded_is_done_as_it_is) {
  for (const std::string refused : {"begin capture", "end capture", "instantiate"}) {
    RecordingMemory memory(card);
    Recording recording(memory);
    once(recording);
    failing = refused;
    const Calls second = once(recording);
    BOOST_TEST(second.back() == "end pool");
    BOOST_TEST(std::ranges::count(second, "begin pool") == 2);
    failing.clear();
    for (int i = 0; i < 3; ++i) BOOST_TEST(once(recording) == as_it_is, boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(work_that_throws_while_it_is_recorded_ends_the_recording) {
  RecordingMemory memory(card);
  Recording recording(memory);
  once(recording);
  int times = 0;
  recording.run([&] {
    if (++times == 1) throw std::runtime_error("not while a stream is captured");
  });
  BOOST_TEST(times == 2);  // while it was recorded, and then as it is
  BOOST_TEST(once(recording) == as_it_is, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(an_error_of_the_work_itself_is_passed_on) {
  RecordingMemory memory(card);
  Recording recording(memory);
  BOOST_CHECK_THROW(recording.run([] { throw std::domain_error("of the work"); }), std::domain_error);
  BOOST_TEST(!pools.in_use);
  BOOST_TEST(pools.held == 1);
}

BOOST_AUTO_TEST_CASE(a_launch_that_fails_is_an_error) {
  RecordingMemory memory(card);
  Recording recording(memory);
  once(recording);
  once(recording);
  failing = "launch";
  BOOST_CHECK_THROW(once(recording), std::runtime_error);
}

BOOST_AUTO_TEST_CASE(without_pools_and_on_the_host_work_is_done_as_it_is) {
  pools.has_pools = false;
  RecordingMemory without(card), host(c10::Device(c10::kCPU));
  for (RecordingMemory* memory : {&without, &host}) {
    Recording recording(*memory);
    for (int i = 0; i < 3; ++i)
      BOOST_TEST(once(recording) == Calls{"work"}, boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_SUITE_END()
