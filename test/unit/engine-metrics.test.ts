import { EngineMetrics } from '../../lib/metrics/engine-metrics';
import type { EngineStats, GenerationOutput } from '../../types/index';

const stats: EngineStats & { callbacks: number } = {
  numRunning: 2,
  numWaiting: 1,
  numFreeBlocks: 75,
  numTotalBlocks: 100,
  kvCacheUsage: 0.25,
  prefixCacheQueries: 40,
  prefixCacheHits: 16,
  numPreemptions: 3,
  promptTokens: 11,
  generatedTokens: 22,
  steps: 5,
  stepSeconds: 0.5,
  callbacks: 4,
  ranks: [],
};

const output = {
  outputs: [
    { finishReason: 'stop', tokenIds: new Int32Array(11) },
    { finishReason: 'length', tokenIds: new Int32Array(5) },
  ],
  usage: { promptTokens: 30, completionTokens: 16, cachedTokens: 16 },
  timing: { queueMs: 500, timeToFirstTokenMs: 700, totalMs: 2700 },
} as unknown as GenerationOutput;

const make = () =>
  new EngineMetrics({
    modelName: 'lexicon',
    maxModelLen: 60,
    cacheConfig: { block_size: 16, enable_prefix_caching: true },
    readStats: () => stats,
  });

/** Lines of a scrape, without the labels that all share. */
async function scrape(metrics: EngineMetrics): Promise<string[]> {
  const text = await metrics.registry.metrics();
  return text.split('\n').map((line) => line.replace(/,?model_name="lexicon",engine="0"/, '').replace('{}', ''));
}
const buckets = (lines: string[], name: string) =>
  lines.filter((line) => line.startsWith(`${name}_bucket`)).map((line) => /le="([^"]+)"/.exec(line)![1]);

describe('metrics', () => {
  it("reads counters and gauges when scraped, under vLLM's names", async () => {
    const metrics = make();
    await metrics.registry.metrics();
    const lines = await scrape(metrics);
    for (const line of [
      'vllm:num_requests_running 2',
      'vllm:num_requests_waiting 1',
      'vllm:kv_cache_usage_perc 0.25',
      'vllm:prefix_cache_queries_total 40',
      'vllm:prefix_cache_hits_total 16',
      'vllm:num_preemptions_total 3',
      'vllm:prompt_tokens_total 11',
      'vllm:generation_tokens_total 22',
      'heddle:native_callbacks_total 4',
      'vllm:cache_config_info{block_size="16",enable_prefix_caching="true"} 1',
    ]) {
      expect(lines).toContain(line);
    }
  });

  it('labels everything with model and engine', async () => {
    const samples = (await make().registry.metrics())
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    expect(samples.length).toBeGreaterThan(100);
    for (const line of samples) expect(line).toContain('model_name="lexicon",engine="0"');
  });

  it("has vLLM's buckets", async () => {
    const lines = await scrape(make());
    expect(buckets(lines, 'vllm:time_to_first_token_seconds')).toEqual(
      '0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560 +Inf'.split(' '),
    );
    expect(buckets(lines, 'vllm:inter_token_latency_seconds')).toEqual(
      '0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80 +Inf'.split(' '),
    );
    expect(buckets(lines, 'vllm:e2e_request_latency_seconds')).toEqual(
      '0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680 +Inf'.split(' '),
    );
    expect(buckets(lines, 'vllm:iteration_tokens_total')).toEqual(
      '1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 +Inf'.split(' '),
    );
    expect(buckets(lines, 'vllm:request_prompt_tokens')).toEqual('1 2 5 10 20 50 +Inf'.split(' '));
    expect(buckets(lines, 'vllm:request_params_n')).toEqual('1 2 5 10 20 +Inf'.split(' '));
  });

  it('takes in what happens', async () => {
    const metrics = make();
    metrics.observeStep(0.002, 7);
    metrics.observeFirstToken(0.7);
    metrics.observeNextToken(0.25);
    metrics.observeRequest(output, 20);
    const lines = await scrape(metrics);
    for (const [name, sum] of [
      ['vllm:iteration_tokens_total', 7],
      ['heddle:step_duration_seconds', 0.002],
      ['vllm:time_to_first_token_seconds', 0.7],
      ['vllm:inter_token_latency_seconds', 0.25],
      ['heddle:inter_token_latency_seconds', 0.25],
      ['vllm:e2e_request_latency_seconds', 2.7],
      ['vllm:request_queue_time_seconds', 0.5],
      ['vllm:request_decode_time_seconds', 2],
      ['vllm:request_time_per_output_token_seconds', 0.2],
      ['vllm:request_prompt_tokens', 30],
      ['vllm:request_prefill_kv_computed_tokens', 14],
      ['vllm:request_generation_tokens', 16],
      ['vllm:request_max_num_generation_tokens', 11],
      ['vllm:request_params_n', 2],
      ['vllm:request_params_max_tokens', 20],
    ] as const) {
      expect(lines).toContain(`${name}_count 1`);
      const line = lines.find((one) => one.startsWith(`${name}_sum`))!;
      expect(Number(line.split(' ')[1])).toBeCloseTo(sum);
    }
    expect(lines).toContain('vllm:request_success_total{finished_reason="stop"} 1');
    expect(lines).toContain('vllm:request_success_total{finished_reason="length"} 1');
  });

  it('keeps engines apart', async () => {
    const [a, b] = [make(), make()];
    a.observeFirstToken(1);
    expect(await scrape(b)).toContain('vllm:time_to_first_token_seconds_count 0');
  });
});
