// What the tests of the sampler share.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "sampler/sampler.h"
#include "test.h"

namespace heddle {

// One sampler with everything that sampling a token takes.
class SamplerFixture {
 public:
  explicit SamplerFixture(int vocab_size) : sampler_(vocab_size, DetectCpuIsa()) {}

  SequenceOutput Sample(const std::vector<float>& logits, const SamplingParams& params,
                        const std::vector<int32_t>& token_ids = {0}, int prompt_len = 1, int sequence_index = 0) {
    SequenceOutput out;
    sampler_.Sample(logits, {&params, token_ids, prompt_len, sequence_index, {}}, out);
    return out;
  }

  bool AppendLogprobs(const std::vector<float>& logits, int32_t token_id, int k, LogprobsData& out) {
    return sampler_.AppendLogprobs(logits, token_id, k, out);
  }

  // How often each token is drawn with seeds 0 .. count - 1.
  std::vector<int> Histogram(const std::vector<float>& logits, SamplingParams params, int count) {
    std::vector<int> histogram(logits.size());
    for (int seed = 0; seed < count; ++seed) {
      params.seed = static_cast<uint64_t>(seed);
      const SequenceOutput out = Sample(logits, params);
      EXPECT_TRUE(out.sampled);
      ++histogram[static_cast<size_t>(out.token_id)];
    }
    return histogram;
  }

  std::set<int> Support(const std::vector<float>& logits, const SamplingParams& params) {
    std::set<int> support;
    const std::vector<int> histogram = Histogram(logits, params, 500);
    for (size_t i = 0; i < histogram.size(); ++i) {
      if (histogram[i] > 0) support.insert(static_cast<int>(i));
    }
    return support;
  }

 private:
  Sampler sampler_;
};

inline std::vector<double> Softmax(const std::vector<float>& logits, double temperature = 1) {
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp((logit - max) / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

inline std::vector<float> RandomLogits(std::mt19937& random, int size, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> logits(static_cast<size_t>(size));
  for (float& logit : logits) logit = normal(random);
  return logits;
}

}  // namespace heddle
