#include "worker/forward_batch.h"

#include "fake_cuda.h"
#include "test.h"

namespace heddle {
namespace {

using test::TheFakeCuda;

constexpr ForwardBatch::Limits kLimits{
    .max_num_tokens = 64, .max_num_seqs = 8, .max_blocks_per_seq = 5, .block_size = 16};

// Two sequences: tokens 15 to 17 of one in its blocks 7 and 3, and the only token that one in block 2 lacks.
struct TwoSequences {
  SequenceState first;
  SequenceState second;
  SchedulerOutput step;

  TwoSequences() {
    first.token_ids.assign(18, 40);
    first.block_ids = {7, 3, 9};
    first.num_computed_tokens = 15;
    second.token_ids = {50, 51};
    second.block_ids = {2};
    second.num_computed_tokens = 1;
    step.scheduled = {{1, 3, true}, {2, 1, true}};
  }
  void BuildIn(ForwardBatch& batch) const {
    const SequenceState* const states[] = {&first, &second};
    batch.Build(step, states);
  }
};

Stream OnFake() { return Stream(1, true, CpuIsa::kScalar, std::make_unique<CudaStream>(0, 1 << 20)); }

template <typename T>
std::vector<T> Values(std::span<const T> span) {
  return {span.begin(), span.end()};
}
using Ints = std::vector<int32_t>;
using Longs = std::vector<int64_t>;

TEST(ForwardBatch, "lays sequences out one after the other, each token in its slot") {
  Stream stream(1, true, CpuIsa::kScalar);
  ForwardBatch batch(stream, kLimits);
  TwoSequences().BuildIn(batch);
  batch.Upload();
  EXPECT_TRUE((Values(batch.token_ids()) == Ints{40, 40, 40, 51}));
  EXPECT_TRUE((Values(batch.positions()) == Ints{15, 16, 17, 1}));
  EXPECT_TRUE((Values(batch.slot_mapping()) == Longs{7 * 16 + 15, 3 * 16, 3 * 16 + 1, 2 * 16 + 1}));
  const ops::AttentionMetadata attention = batch.attention();
  EXPECT_TRUE((Values(attention.query_start_loc) == Ints{0, 3, 4}));
  EXPECT_TRUE((Values(attention.seq_lens) == Ints{18, 2}));
  EXPECT_TRUE((Values(attention.block_table) == Ints{7, 3, 9, 2, 0, 0}));
  EXPECT_EQ(attention.max_blocks_per_seq, 3);
  EXPECT_EQ(attention.max_query_len, 3);
  EXPECT_EQ(attention.max_seq_len, 18);
  EXPECT_EQ(batch.first_row(1), 3);
}

TEST(ForwardBatch, "forgets the step before") {
  Stream stream(1, true, CpuIsa::kScalar);
  ForwardBatch batch(stream, kLimits);
  TwoSequences sequences;
  sequences.BuildIn(batch);
  sequences.step.scheduled.resize(1);
  sequences.BuildIn(batch);
  EXPECT_EQ(batch.num_seqs(), 1);
  EXPECT_EQ(batch.token_ids().size(), 3u);
}

TEST(ForwardBatch, "is the same on a device, but for tables as wide as a power of two") {
  TheFakeCuda();
  Stream stream = OnFake();
  ForwardBatch batch(stream, kLimits);
  TwoSequences().BuildIn(batch);
  batch.SetLogitsRows({2, 3});
  batch.Upload();
  EXPECT_TRUE((Values(batch.token_ids()) == Ints{40, 40, 40, 51}));
  EXPECT_TRUE((Values(batch.slot_mapping()) == Longs{7 * 16 + 15, 3 * 16, 3 * 16 + 1, 2 * 16 + 1}));
  EXPECT_TRUE((Values(batch.logits_rows()) == Ints{2, 3}));
  EXPECT_TRUE((Values(batch.attention().block_table) == Ints{7, 3, 9, 0, 2, 0, 0, 0}));
  EXPECT_EQ(batch.attention().max_blocks_per_seq, 4);
}

TEST(ForwardBatch, "is filled up with sequences of nothing, whose tokens are not stored") {
  TheFakeCuda();
  Stream stream = OnFake();
  ForwardBatch batch(stream, kLimits);
  TwoSequences sequences;
  sequences.step.scheduled[0].num_scheduled_tokens = 1;
  sequences.BuildIn(batch);
  batch.Upload(4);
  EXPECT_EQ(batch.num_seqs(), 4);
  EXPECT_TRUE((Values(batch.token_ids()) == Ints{40, 51, 0, 0}));
  EXPECT_TRUE((Values(batch.slot_mapping()) == Longs{7 * 16 + 15, 2 * 16 + 1, -1, -1}));
  EXPECT_TRUE((Values(batch.attention().query_start_loc) == Ints{0, 1, 2, 3, 4}));
  EXPECT_TRUE((Values(batch.attention().seq_lens) == Ints{16, 2, 0, 0}));
  EXPECT_EQ(batch.attention().block_table.size(), 16u);
}

TEST(ForwardBatch, "takes a pending token from where the step before left it") {
  TheFakeCuda();
  Stream stream = OnFake();
  ForwardBatch batch(stream, kLimits);
  TwoSequences sequences;
  sequences.second.num_computed_tokens = 2;
  sequences.second.num_pending_tokens = 1;
  sequences.second.pending_row = 1;
  sequences.BuildIn(batch);
  const Ints sampled = {60, 61};
  batch.Upload();
  EXPECT_TRUE(batch.has_pending_tokens());
  batch.FillPending(sampled.data());
  EXPECT_TRUE((Values(batch.token_ids()) == Ints{40, 40, 40, 61}));
}

TEST(ForwardBatch, "leaves alone what the device has yet to copy for the step before") {
  TheFakeCuda().is_late = true;
  Stream stream = OnFake();
  ForwardBatch batch(stream, kLimits);
  TwoSequences sequences;
  CudaEvent first = stream.cuda()->CreateEvent();
  sequences.BuildIn(batch);
  batch.Upload();
  first.Record();
  sequences.first.token_ids.assign(18, 60);
  sequences.BuildIn(batch);
  batch.Upload();
  first.Wait();
  EXPECT_TRUE((Values(batch.token_ids()) == Ints{40, 40, 40, 51}));
  stream.cuda()->Synchronize();
  EXPECT_TRUE((Values(batch.token_ids()) == Ints{60, 60, 60, 51}));
  TheFakeCuda();
}

TEST(ForwardBatch, "takes no more device memory than it says") {
  TheFakeCuda();
  Stream stream = OnFake();
  ForwardBatch batch(stream, kLimits);
  std::vector<SequenceState> states(8);
  std::vector<const SequenceState*> pointers;
  SchedulerOutput step;
  for (SequenceState& state : states) {
    state.token_ids.assign(80, 1);
    state.block_ids = {1, 2, 3, 4, 5};
    state.num_computed_tokens = 72;
    step.scheduled.push_back({1, 8, true});
    pointers.push_back(&state);
  }
  batch.Build(step, pointers);
  batch.SetLogitsRows(Ints(8, 0));
  batch.Upload();  // checks it
  EXPECT_EQ(batch.token_ids().size(), 64u);
}

}  // namespace
}  // namespace heddle
