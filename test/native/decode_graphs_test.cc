#include "worker/decode_graphs.h"

#include "comm/local_communicator.h"
#include "fake_cuda.h"
#include "test.h"

namespace heddle {
namespace {

using std::chrono::milliseconds;
using Shape = DecodeGraphs::Shape;

constexpr Shape kFirst{1, 4};
constexpr Shape kSecond{2, 4};
constexpr Shape kThird{1, 8};

// Steps that put their number of sequences into device memory.
class Steps {
 public:
  explicit Steps(size_t max_graphs, WaitLimits limits = {})
      : stream_(0, 1 << 20, std::move(limits)),
        communicator_(std::move(CreateLocalGroup(1, milliseconds(1000), true)[0])),
        result_(stream_.Allocate(sizeof(int32_t))),
        graphs_(stream_, *communicator_, max_graphs) {}

  // Whether the step was launched anew, by itself or into a graph.
  bool Launches(const Shape& shape) {
    CheckCuda(CudaApi().fill(stream_.get(), result_.get(), 0, sizeof(int32_t)));
    bool launches = false;
    graphs_.Run(shape, [&] {
      launches = true;
      CheckCuda(CudaApi().fill(stream_.get(), result_.get(), shape.num_seqs, 1));
    });
    int32_t result = 0;
    stream_.Copy(&result, result_.get(), sizeof(result));
    stream_.Synchronize();
    EXPECT_EQ(result, shape.num_seqs);
    return launches;
  }
  void Capture(const Shape& shape) {
    while (Launches(shape)) continue;
  }

 private:
  CudaStream stream_;
  std::unique_ptr<Communicator> communicator_;
  std::shared_ptr<void> result_;
  DecodeGraphs graphs_;
};

TEST(DecodeGraphs, "launches a shape's first step, captures its second, and replays that from then on") {
  test::RequireDevice();
  Steps steps(4);
  EXPECT_TRUE(steps.Launches(kFirst));
  EXPECT_TRUE(steps.Launches(kSecond));
  EXPECT_TRUE(steps.Launches(kFirst));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(!steps.Launches(kFirst));
  EXPECT_TRUE(steps.Launches(kSecond));
  EXPECT_TRUE(!steps.Launches(kSecond));
}

TEST(DecodeGraphs, "are one a number of sequences, a width of the block table, and with sampling or without") {
  test::RequireDevice();
  Steps steps(4);
  steps.Capture({2, 4, false});
  for (const Shape& other : {Shape{1, 4, false}, Shape{2, 8, false}, Shape{2, 4, true}}) {
    EXPECT_TRUE(steps.Launches(other));
    EXPECT_TRUE(steps.Launches(other));
    EXPECT_TRUE(!steps.Launches(other));
  }
  EXPECT_TRUE(!steps.Launches({2, 4, false}));
}

TEST(DecodeGraphs, "gives up the graph that was not replayed for longest, and captures its shape anew") {
  test::RequireDevice();
  Steps steps(2);
  steps.Capture(kFirst);
  steps.Capture(kSecond);
  EXPECT_TRUE(!steps.Launches(kFirst));
  steps.Capture(kThird);
  EXPECT_TRUE(!steps.Launches(kFirst));
  EXPECT_TRUE(steps.Launches(kSecond));  // in the place of the third
  EXPECT_TRUE(!steps.Launches(kSecond));
  EXPECT_TRUE(!steps.Launches(kFirst));
  EXPECT_TRUE(steps.Launches(kThird));
}

TEST(DecodeGraphs, "are never more than they may be") {
  test::FakeCuda& fake = test::TheFakeCuda();
  {
    Steps steps(3);
    for (int round = 0; round < 2; ++round) {
      for (int num_seqs = 1; num_seqs <= 8; ++num_seqs) {
        steps.Capture({num_seqs, 4});
        EXPECT_TRUE(fake.num_graphs <= 3);
      }
    }
    EXPECT_EQ(fake.num_graphs.load(), 3);
  }
  EXPECT_EQ(fake.num_graphs.load(), 0);
}

TEST(DecodeGraphs, "are not given up while the device may run them") {
  test::FakeCuda& fake = test::TheFakeCuda();
  Steps steps(1, {.timeout = milliseconds(30)});
  steps.Capture(kFirst);
  EXPECT_TRUE(steps.Launches(kSecond));
  fake.devices[0].state = test::FakeState::kStalled;
  EXPECT_ERROR(ErrorCode::kCommTimeout, steps.Launches(kSecond));
  EXPECT_EQ(fake.num_graphs.load(), 1);
  fake.devices[0].state = test::FakeState::kRunning;
}

TEST(DecodeGraphs, "are of few numbers of sequences, none above the most that there may be") {
  int distinct = 0;
  int last = 0;
  for (int num_seqs = 1; num_seqs <= 250; ++num_seqs) {
    const int padded = DecodeGraphs::PaddedNumSeqs(num_seqs, 250);
    EXPECT_TRUE(padded >= num_seqs && padded <= 250 && padded >= last);
    distinct += padded != last ? 1 : 0;
    last = padded;
  }
  EXPECT_EQ(last, 250);
  EXPECT_TRUE(distinct < 25);
  EXPECT_EQ(DecodeGraphs::PaddedNumSeqs(3, 250), 4);
  EXPECT_EQ(DecodeGraphs::PaddedNumSeqs(9, 250), 16);
  EXPECT_EQ(DecodeGraphs::PaddedNumSeqs(65, 250), 80);
}

}  // namespace
}  // namespace heddle
