#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "common/graph.h"
#include "common/rounding.h"
#include "gemm/gemm.h"

namespace heddle::cuda {
namespace {

// Asked of the heuristic, and tried.
constexpr int kMaxCandidates = 8;
constexpr int kTrials = 3;
// A graph of kernels alone is launched as a whole. What clears memory before a product costs the host two microseconds
// more each time a graph is launched: half of that is what the device may take longer without.
constexpr float kClearingSeconds = 1e-6f;

cudaDataType TypeOf(HeddleCudaDType dtype) {
  switch (dtype) {
    case kHeddleCudaFloat16:
      return CUDA_R_16F;
    case kHeddleCudaBFloat16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

CublasLtLayout LayoutOf(const HeddleCudaMatrix& matrix) {
  // A row-major matrix is the transpose of a column-major one. A single row has any stride, but cuBLASLt looks at it.
  const int64_t stride = matrix.num_rows == 1 ? RoundUp(matrix.size, 8) : matrix.stride;
  cublasLtMatrixLayout_t layout = nullptr;
  CheckCublasLt(CublasLt().layout_create(&layout, TypeOf(matrix.dtype), static_cast<uint64_t>(matrix.size),
                                         static_cast<uint64_t>(matrix.num_rows), stride),
                "cublasLtMatrixLayoutCreate");
  return CublasLtLayout(layout);
}

// Rounded up to 2^i or 3 * 2^i.
int64_t Bucket(int64_t num_rows) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(num_rows)));
  return power >= 4 && num_rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

// 0 for null.
int64_t AlignmentOf(const void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return static_cast<int64_t>(std::min<uintptr_t>(address & -address, 256));
}

class Timer {
 public:
  Timer() {
    HEDDLE_CUDA_CHECK(cudaEventCreate(&begin_));
    const cudaError_t error = cudaEventCreate(&end_);
    if (error != cudaSuccess) cudaEventDestroy(begin_);
    Check(error, "cudaEventCreate");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void Begin(const HeddleCudaStream& stream) { HEDDLE_CUDA_CHECK(cudaEventRecord(begin_, stream.stream)); }
  // Waits for the stream.
  float End(const HeddleCudaStream& stream) {
    float milliseconds = 0;
    HEDDLE_CUDA_CHECK(cudaEventRecord(end_, stream.stream));
    SynchronizeStream(stream);
    HEDDLE_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds / 1000;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace

int64_t BytesBeforeGemmWorkspace(const HeddleCudaStream& stream) {
  constexpr int64_t kMost = int64_t{32} << 20;
  return (stream.workspace_bytes - std::min(kMost, stream.workspace_bytes / 2)) / 256 * 256;
}

// The op as cuBLASLt sees it: y^T = weight^T^T x^T, all column-major.
class GemmPlans::Problem {
 public:
  explicit Problem(const HeddleCudaMatmul& op)
      : op_(op), weight_(LayoutOf(op.weight.values)), x_(LayoutOf(op.x)), y_(LayoutOf(op.y)) {
    cublasLtMatmulDesc_t operation = nullptr;
    // Not the TF32 variant: float32 keeps its bits.
    CheckCublasLt(CublasLt().operation_create(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    operation_.reset(operation);
    Set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (op.bias != nullptr) {
      Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
      Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, op.bias);
    }
  }

  std::array<int64_t, 9> Key(int64_t rows) const {
    return {rows,
            op_.y.size,
            op_.x.size,
            op_.x.dtype,
            op_.y.dtype,
            op_.x.stride,
            op_.weight.values.stride,
            op_.y.stride,
            AlignmentOf(op_.bias)};  // the heuristic looks at the pointer
  }
  const HeddleCudaMatmul& op() const { return op_; }

  // The best first; none where cuBLASLt has no algorithm.
  std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t handle, int64_t workspace_bytes) const {
    cublasLtMatmulPreference_t made = nullptr;
    CheckCublasLt(CublasLt().preference_create(&made), "cublasLtMatmulPreferenceCreate");
    const CublasLtPreference preference(made);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      CheckCublasLt(CublasLt().preference_set(made, attribute, &value, sizeof(value)),
                    "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes));
    // Other schemes add parts of a sum in the output's type.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    // Whatever this op's matrices are aligned to, others share its algorithm.
    constexpr uint32_t kAlignment = 16;
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kAlignment);

    cublasLtMatmulHeuristicResult_t results[kMaxCandidates];
    int count = 0;
    const cublasStatus_t status = CublasLt().heuristic(handle, operation_.get(), weight_.get(), x_.get(), y_.get(),
                                                       y_.get(), made, kMaxCandidates, results, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return {};
    CheckCublasLt(status, "cublasLtMatmulAlgoGetHeuristic");
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (const auto& result : std::span(results).first(count)) {
      if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(result.algo);
    }
    return algorithms;
  }

  cublasStatus_t Run(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
                     int64_t workspace_bytes, cudaStream_t stream) const {
    constexpr float kOne = 1;
    constexpr float kZero = 0;
    return CublasLt().matmul(handle, operation_.get(), &kOne, op_.weight.values.data, weight_.get(), op_.x.data,
                             x_.get(), &kZero, op_.y.data, y_.get(), op_.y.data, y_.get(), &algorithm, workspace,
                             static_cast<size_t>(workspace_bytes), stream);
  }

 private:
  template <typename T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    CheckCublasLt(CublasLt().operation_set(operation_.get(), attribute, &value, sizeof(value)),
                  "cublasLtMatmulDescSetAttribute");
  }

  const HeddleCudaMatmul& op_;
  CublasLtOperation operation_;
  CublasLtLayout weight_;
  CublasLtLayout x_;
  CublasLtLayout y_;
};

GemmPlans& GemmPlans::Of(HeddleCudaStream& stream) {
  if (stream.gemm_plans == nullptr) stream.gemm_plans = std::make_shared<GemmPlans>();
  return *stream.gemm_plans;
}

GemmPlans::GemmPlans() {
  const CaptureExemption exemption;
  cublasLtHandle_t handle = nullptr;
  CheckCublasLt(CublasLt().create(&handle), "cublasLtCreate");
  handle_.reset(handle);
}

bool GemmPlans::Multiply(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  const CaptureExemption exemption;
  const Problem problem(op);
  const Plan& shared = PlanFor(stream, problem, Bucket(op.x.num_rows));
  if (shared.state != Plan::State::kNone && Run(stream, problem, shared.algorithm) == CUBLAS_STATUS_SUCCESS)
    return true;
  // The algorithm may be one that does not take this number of rows, though it took another of the bucket's.
  Plan& own = PlanFor(stream, problem, -op.x.num_rows);
  if (own.state == Plan::State::kNone) return false;
  const cublasStatus_t status = Run(stream, problem, own.algorithm);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    own.state = Plan::State::kNone;
    return false;
  }
  CheckCublasLt(status, "cublasLtMatmul");
  return true;
}

GemmPlans::Plan& GemmPlans::PlanFor(const HeddleCudaStream& stream, const Problem& problem, int64_t rows) {
  Plan& plan = plans_[problem.Key(rows)];
  const bool better = plan.state == Plan::State::kGuessed && !stream.capturing;
  if (plan.state == Plan::State::kNew || better) plan = Choose(stream, problem);
  return plan;
}

GemmPlans::Plan GemmPlans::Choose(const HeddleCudaStream& stream, const Problem& problem) {
  const auto candidates = problem.Candidates(handle_.get(), stream.workspace_bytes - BytesBeforeGemmWorkspace(stream));
  if (candidates.empty()) return {Plan::State::kNone, {}};
  if (stream.capturing) return {Plan::State::kGuessed, candidates.front()};
  if (candidates.size() == 1) return {Plan::State::kMeasured, candidates.front()};
  Plan best{Plan::State::kNone, {}};
  float least = std::numeric_limits<float>::infinity();
  for (const cublasLtMatmulAlgo_t& candidate : candidates) {
    float seconds = Seconds(stream, problem, candidate);
    if (seconds < least) seconds += SecondsInGraph(stream, problem, candidate);
    if (seconds < least) {
      least = seconds;
      best = {Plan::State::kMeasured, candidate};
    }
  }
  return best;
}

float GemmPlans::Seconds(const HeddleCudaStream& stream, const Problem& problem,
                         const cublasLtMatmulAlgo_t& algorithm) {
  // Enough to leave neither weights nor x in L2, where a step of a model would not find them either.
  const auto flushed = static_cast<size_t>(std::min(stream.workspace_bytes, int64_t{64} << 20));
  Timer timer;
  float least = std::numeric_limits<float>::infinity();
  for (int trial = 0; trial < kTrials + 1; ++trial) {
    if (flushed > 0) HEDDLE_CUDA_CHECK(cudaMemsetAsync(stream.workspace, 0, flushed, stream.stream));
    timer.Begin(stream);
    if (Run(stream, problem, algorithm) != CUBLAS_STATUS_SUCCESS) return std::numeric_limits<float>::infinity();
    const float seconds = timer.End(stream);
    // The first also loads the kernel.
    if (trial > 0) least = std::min(least, seconds);
  }
  return least;
}

float GemmPlans::SecondsInGraph(const HeddleCudaStream& stream, const Problem& problem,
                                const cublasLtMatmulAlgo_t& algorithm) {
  HEDDLE_CUDA_CHECK(cudaStreamBeginCapture(stream.stream, cudaStreamCaptureModeRelaxed));
  const cublasStatus_t status = Run(stream, problem, algorithm);
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream.stream, &graph);
  cudaGraphNode_t nodes[8];
  size_t num_nodes = std::size(nodes);
  if (error == cudaSuccess) error = cudaGraphGetNodes(graph, nodes, &num_nodes);
  bool clears = false;
  for (size_t i = 0; i < num_nodes && error == cudaSuccess; ++i) {
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    error = cudaGraphNodeGetType(nodes[i], &type);
    clears = clears || type == cudaGraphNodeTypeMemset;
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (error != cudaSuccess || status != CUBLAS_STATUS_SUCCESS) {
    cudaGetLastError();
    return std::numeric_limits<float>::infinity();
  }
  return clears ? kClearingSeconds : 0;
}

cublasStatus_t GemmPlans::Run(const HeddleCudaStream& stream, const Problem& problem,
                              const cublasLtMatmulAlgo_t& algorithm) {
  const int64_t begin = BytesBeforeGemmWorkspace(stream);
  return problem.Run(handle_.get(), algorithm, static_cast<unsigned char*>(stream.workspace) + begin,
                     stream.workspace_bytes - begin, stream.stream);
}

}  // namespace heddle::cuda
