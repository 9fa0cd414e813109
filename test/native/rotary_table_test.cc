// Expected values: the rotary embedding of Llama (of Phi-3 where the rotation is partial) in transformers 5.18.0 and
// torch 2.13.0, float32, head_dim 16; for type dynamic fed position by position, as in incremental decoding.
#include "models/rotary_table.h"

#include <cmath>
#include <vector>

#include "test.h"

namespace heddle {
namespace {

constexpr int kHeadDim = 16;

RopeConfig Rope(RopeType type, double theta = 10000.0) {
  RopeConfig rope;
  rope.type = type;
  rope.theta = theta;
  rope.rotary_dim = kHeadDim;
  return rope;
}

RopeConfig Yarn(double factor, int original, double theta = 10000.0) {
  RopeConfig rope = Rope(RopeType::kYarn, theta);
  rope.factor = factor;
  rope.original_max_position_embeddings = original;
  return rope;
}

struct ExpectedRow {
  int position;
  std::vector<float> values;
};

void ExpectRows(const RopeConfig& rope, int max_position_embeddings, const std::vector<ExpectedRow>& expected) {
  const int max_positions = expected.back().position + 1;
  RotaryTable rotary_table(rope, kHeadDim, max_position_embeddings, max_positions);
  rotary_table.FillTo(max_positions);
  const Tensor& table = rotary_table.cos_sin();
  EXPECT_EQ(table.view().shape, (Shape{max_positions, rope.rotary_dim}));
  EXPECT_EQ(table.view().dtype, DType::kFloat32);
  for (const ExpectedRow& row : expected) {
    EXPECT_EQ(row.values.size(), static_cast<size_t>(rope.rotary_dim));
    for (size_t i = 0; i < row.values.size(); ++i) {
      EXPECT_NEAR(table.view().Row<float>(row.position)[i], row.values[i], 1e-5);
    }
  }
}

TEST(RotaryTable, "follows the original paper") {
  const RopeConfig rope = Rope(RopeType::kDefault);
  ExpectRows(
      rope, 2048,
      {{1,
        {0.54030234f, 0.95041531f, 0.99500418f, 0.99950004f, 0.99994999f, 0.99999499f, 0.99999952f, 0.99999994f,
         0.84147096f, 0.31098360f, 0.09983342f, 0.03161751f, 0.00999983f, 0.00316227f, 0.00100000f, 0.00031623f}},
       {63,
        {0.98589659f, 0.47767144f, 0.99985862f, -0.40907374f, 0.80802751f, 0.98022056f, 0.99801618f, 0.99980158f,
         0.16735570f, 0.87853855f, 0.01681409f, 0.91250134f, 0.58914477f, 0.19790825f, 0.06295834f, 0.01992103f}},
       {1000,
        {0.56237906f, -0.47739792f, 0.86231887f, 0.97868240f, -0.83907151f, -0.99978608f, 0.54030234f, 0.95041525f,
         0.82687956f, 0.87868720f, -0.50636566f, 0.20537944f, -0.54402113f, -0.02068381f, 0.84147096f, 0.31098363f}}});
}

TEST(RotaryTable, "divides frequencies for type linear") {
  RopeConfig rope = Rope(RopeType::kLinear);
  rope.factor = 4.0;
  ExpectRows(
      rope, 2048,
      {{1,
        {0.96891242f, 0.99687660f, 0.99968749f, 0.99996877f, 0.99999690f, 0.99999970f, 1.00000000f, 1.00000000f,
         0.24740396f, 0.07897461f, 0.02499740f, 0.00790561f, 0.00250000f, 0.00079057f, 0.00025000f, 0.00007906f}},
       {63,
        {-0.99911660f, 0.26499477f, -0.00420371f, 0.87851161f, 0.98762250f, 0.99875993f, 0.99987596f, 0.99998760f,
         -0.04202435f, -0.96424985f, 0.99999118f, 0.47772104f, 0.15684964f, 0.04978529f, 0.01574935f, 0.00498057f}},
       {1000,
        {0.24098830f, -0.86924571f, 0.99120283f, -0.05168980f, -0.80114359f, 0.70344067f, 0.96891242f, 0.99687660f,
         -0.97052801f, -0.49438035f, -0.13235176f, 0.99866319f, 0.59847212f, 0.71075398f, 0.24740396f, 0.07897462f}}});
}

TEST(RotaryTable, "stretches frequencies position by position beyond the trained length for type dynamic") {
  RopeConfig rope = Rope(RopeType::kDynamic);
  rope.factor = 2.0;
  ExpectRows(
      rope, 64,
      {{63,
        {0.98589659f, 0.47767144f, 0.99985862f, -0.40907374f, 0.80802751f, 0.98022056f, 0.99801618f, 0.99980158f,
         0.16735570f, 0.87853855f, 0.01681409f, 0.91250134f, 0.58914477f, 0.19790825f, 0.06295834f, 0.01992103f}},
       {64,
        {0.39185724f, 0.26725876f, 0.99815267f, -0.41372898f, 0.80870759f, 0.98046476f, 0.99805784f, 0.99980742f,
         0.92002606f, 0.96362484f, 0.06075566f, 0.91040009f, 0.58821088f, 0.19669500f, 0.06229367f, 0.01962403f}},
       {200,
        {0.48718768f, 0.92024934f, 0.99095809f, -0.99911243f, 0.71599537f, 0.98149860f, 0.99884665f, 0.99992830f,
         -0.87329727f, -0.39133251f, -0.13417155f, 0.04212268f, 0.69810504f, 0.19146942f, 0.04801472f, 0.01197520f}}});
}

TEST(RotaryTable, "follows YaRN with its default parameters") {
  const RopeConfig rope = Yarn(4.0, 2048);
  ExpectRows(
      rope, 8192,
      {{1,
        {0.61520416f, 1.08217084f, 1.13294101f, 1.13825357f, 1.13860714f, 1.13862836f, 1.13862944f, 1.13862944f,
         0.95812362f, 0.35409507f, 0.11367327f, 0.02925216f, 0.00711639f, 0.00157529f, 0.00028466f, 0.00009002f}},
       {63,
        {1.12257087f, 0.54389077f, 1.13846850f, -0.05451326f, 1.05149794f, 1.13430715f, 1.13848817f, 1.13861537f,
         0.19055612f, 1.00032985f, 0.01914502f, 1.13732374f, 0.43683988f, 0.09911766f, 0.01793267f, 0.00567102f}},
       {1000,
        {0.64034134f, -0.54357934f, 0.98186165f, 0.96424663f, 1.13800251f, 0.21202032f, 1.10323226f, 1.13507307f,
         0.94150943f, 1.00049913f, -0.57656282f, 0.60556203f, -0.03777938f, 1.11871552f, 0.28170145f, 0.08992282f}}});
}

TEST(RotaryTable, "follows YaRN with an untruncated ramp between other rotations") {
  RopeConfig rope = Yarn(4.0, 4096, 1000000.0);
  rope.beta_fast = 16.0;
  rope.beta_slow = 2.0;
  rope.truncate = false;
  ExpectRows(
      rope, 16384,
      {{1,
        {0.61520416f, 1.12067354f, 1.13806021f, 1.13862550f, 1.13862944f, 1.13862944f, 1.13862944f, 1.13862944f,
         0.95812362f, 0.20141466f, 0.03600062f, 0.00300006f, 0.00028466f, 0.00005062f, 0.00000900f, 0.00000160f}},
       {63,
        {1.12257087f, 0.23466963f, -0.46578342f, 1.12297881f, 1.13848817f, 1.13862491f, 1.13862932f, 1.13862944f,
         0.19055612f, -1.11418450f, 1.03900087f, 0.18813725f, 0.01793267f, 0.00318906f, 0.00056710f, 0.00010085f}},
       {1000,
        {0.64034134f, -0.36676341f, 1.11435664f, -0.99551159f, 1.10323226f, 1.13750434f, 1.13859391f, 1.13862836f,
         0.94150943f, 1.07794321f, 0.23385108f, 0.55266052f, 0.28170145f, 0.05060336f, 0.00900156f, 0.00160075f}}});
}

TEST(RotaryTable, "follows YaRN with mscale and mscale_all_dim") {
  RopeConfig rope = Yarn(40.0, 4096);
  rope.mscale = 0.707;
  rope.mscale_all_dim = 1.2;
  ExpectRows(
      rope, 163840,
      {{1,
        {0.47219208f, 0.83060640f, 0.86957443f, 0.87369061f, 0.87392902f, 0.87394017f, 0.87394047f, 0.87394047f,
         0.73539555f, 0.27178115f, 0.08724847f, 0.02089805f, 0.00447892f, 0.00074273f, 0.00002185f, 0.00000691f}},
       {63,
        {0.86161494f, 0.41745642f, 0.87381691f, 0.05604110f, 0.82878143f, 0.87268811f, 0.87393939f, 0.87394035f,
         0.14625892f, 0.76779038f, 0.01469451f, 0.87214184f, 0.27729633f, 0.04676957f, 0.00137646f, 0.00043527f}},
       {1000,
        {0.49148583f, -0.41721737f, 0.75361538f, 0.30195290f, 0.35045201f, 0.57687646f, 0.87366736f, 0.87391317f,
         0.72264349f, 0.76792032f, -0.44253343f, -0.82011974f, -0.80059689f, 0.65649480f, 0.02184623f, 0.00690903f}}});
}

TEST(RotaryTable, "follows YaRN with a given attention factor") {
  RopeConfig rope = Yarn(4.0, 2048);
  rope.attention_factor = 1.5;
  ExpectRows(
      rope, 8192,
      {{1,
        {0.81045353f, 1.42562294f, 1.49250627f, 1.49950480f, 1.49997067f, 1.49999857f, 1.50000000f, 1.50000000f,
         1.26220644f, 0.46647540f, 0.14975013f, 0.03853602f, 0.00937494f, 0.00207524f, 0.00037500f, 0.00011859f}},
       {63,
        {1.47884488f, 0.71650720f, 1.49978793f, -0.07181432f, 1.38521528f, 1.49430597f, 1.49981391f, 1.49998140f,
         0.25103354f, 1.31780779f, 0.02522114f, 1.49827993f, 0.57548118f, 0.13057496f, 0.02362402f, 0.00747085f}},
       {1000,
        {0.84356856f, -0.71609688f, 1.29347825f, 1.27027273f, 1.49917412f, 0.27930993f, 1.45336866f, 1.49531484f,
         1.24031937f, 1.31803083f, -0.75954849f, 0.79775131f, -0.04976954f, 1.47376597f, 0.37110594f, 0.11846193f}}});
}

TEST(RotaryTable, "follows Llama 3.1, smoothing between its wavelengths") {
  RopeConfig rope = Rope(RopeType::kLlama3, 500000.0);
  rope.factor = 8.0;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.original_max_position_embeddings = 1024;
  ExpectRows(
      rope, 8192,
      {{1,
        {0.54030234f, 0.98125583f, 0.99929297f, 0.99999917f, 1.00000000f, 1.00000000f, 1.00000000f, 1.00000000f,
         0.84147096f, 0.19270959f, 0.03759717f, 0.00131257f, 0.00017678f, 0.00003428f, 0.00000665f, 0.00000129f}},
       {63,
        {0.98589659f, 0.93963403f, -0.71622902f, 0.99658298f, 0.99993801f, 0.99999768f, 0.99999994f, 1.00000000f,
         0.16735570f, -0.34218106f, 0.69786531f, 0.08259767f, 0.01113670f, 0.00215970f, 0.00041882f, 0.00008122f}},
       {1000,
        {0.56237906f, 0.65547532f, 0.99567097f, 0.25536656f, 0.98441565f, 0.99941248f, 0.99997789f, 0.99999917f,
         0.82687956f, -0.75521660f, -0.09294797f, 0.96684432f, 0.17585741f, 0.03427431f, 0.00664782f, 0.00128917f}}});
}

TEST(RotaryTable, "rotates a part of the head") {
  RopeConfig rope = Rope(RopeType::kDefault);
  rope.rotary_dim = 8;
  ExpectRows(
      rope, 2048,
      {{1, {0.54030234f, 0.99500418f, 0.99994999f, 0.99999952f, 0.84147096f, 0.09983342f, 0.00999983f, 0.00100000f}},
       {63, {0.98589659f, 0.99985862f, 0.80802751f, 0.99801618f, 0.16735570f, 0.01681409f, 0.58914477f, 0.06295834f}},
       {1000,
        {0.56237906f, 0.86231887f, -0.83907151f, 0.54030234f, 0.82687956f, -0.50636566f, -0.54402113f, 0.84147096f}}});
}

TEST(RotaryTable, "holds cosine one and sine zero at position 0, times yarn's attention factor") {
  RotaryTable plain(Rope(RopeType::kDefault), kHeadDim, 2048, 1);
  plain.FillTo(1);
  RopeConfig yarn = Yarn(4.0, 2048);
  yarn.attention_factor = 1.5;
  RotaryTable scaled(yarn, kHeadDim, 8192, 1);
  scaled.FillTo(1);
  for (int i = 0; i < kHeadDim; ++i) {
    EXPECT_EQ(plain.cos_sin().view().Data<float>()[i], i < kHeadDim / 2 ? 1.0f : 0.0f);
    EXPECT_EQ(scaled.cos_sin().view().Data<float>()[i], i < kHeadDim / 2 ? 1.5f : 0.0f);
  }
}

TEST(RotaryTable, "does not depend on how it was filled in") {
  RopeConfig dynamic = Rope(RopeType::kDynamic);
  dynamic.factor = 2.0;
  RotaryTable at_once(dynamic, kHeadDim, 64, 100);
  RotaryTable in_steps(dynamic, kHeadDim, 64, 300);
  at_once.FillTo(100);
  for (const int num_positions : {1, 60, 20, 65, 99, 100}) in_steps.FillTo(num_positions);
  for (int64_t i = 0; i < 100 * kHeadDim; ++i) {
    EXPECT_EQ(at_once.cos_sin().view().Data<float>()[i], in_steps.cos_sin().view().Data<float>()[i]);
  }
}

TEST(RotaryTable, "refuses a rotation that does not fit the head as a bug of ours") {
  for (const int rotary_dim : {0, 3, 18}) {
    RopeConfig rope = Rope(RopeType::kDefault);
    rope.rotary_dim = rotary_dim;
    EXPECT_ERROR(ErrorCode::kInternal, RotaryTable(rope, kHeadDim, 64, 1));
  }
}

}  // namespace
}  // namespace heddle
