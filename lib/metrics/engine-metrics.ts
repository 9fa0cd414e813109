/**
 * Prometheus metrics of one engine, under vLLM's names and buckets (`vllm/v1/metrics/loggers.py`), so that dashboards made
 * for vLLM show heddle. What vLLM does not have is prefixed `heddle:`.
 *
 * @module
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { EngineStats, GenerationOutput } from '../../types/outputs';

/** What metrics tell about an engine that does not change. */
export interface MetricsOptions {
  /** Label `model_name` of every metric. */
  readonly modelName: string;
  readonly maxModelLen: number;
  /** Labels of `vllm:cache_config_info`. */
  readonly cacheConfig: Readonly<Record<string, string | number | boolean>>;
  /** Asked at every scrape. */
  readonly readStats: () => EngineStats & { callbacks: number };
}

const TIME_TO_FIRST_TOKEN = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
];
const INTER_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];
const REQUEST_TIME = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680];
const ITERATION_TOKENS = [1, 8, ...Array.from({ length: 11 }, (_, i) => 2 ** (i + 4))];
/** vLLM's start at 10 ms, too coarse for small models. */
const FINE = [0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];

/** 1, 2, 5, 10, 20, 50, … up to `max`. */
function oneTwoFive(max: number): number[] {
  const buckets: number[] = [];
  for (let decade = 1; decade <= max; decade *= 10) {
    buckets.push(...[1, 2, 5].map((step) => step * decade).filter((bucket) => bucket <= max));
  }
  return buckets;
}

/** The metrics of one engine. Counters and gauges are read when scraped; histograms are fed as things happen. */
export class EngineMetrics {
  readonly registry = new Registry();
  readonly #readStats: MetricsOptions['readStats'];
  readonly #iterationTokens: Histogram;
  readonly #stepDuration: Histogram;
  readonly #timeToFirstToken: Histogram;
  readonly #interTokenLatency: Histogram;
  readonly #fineInterTokenLatency: Histogram;
  readonly #requestSuccess: Counter;
  readonly #requestHistograms: [Histogram, (request: RequestFigures) => number | undefined][];

  constructor({ modelName, maxModelLen, cacheConfig, readStats }: MetricsOptions) {
    // vLLM numbers its engines; a registry of ours has one.
    this.registry.setDefaultLabels({ model_name: modelName, engine: '0' });
    this.#readStats = readStats;
    this.#defineGauges(cacheConfig);
    this.#defineCounters();
    this.#requestSuccess = new Counter({
      name: 'vllm:request_success_total',
      help: 'Sequences that ended, by reason.',
      labelNames: ['finished_reason'],
      registers: [this.registry],
    });
    this.#iterationTokens = this.#histogram('vllm:iteration_tokens_total', 'Tokens of one step.', ITERATION_TOKENS);
    this.#stepDuration = this.#histogram('heddle:step_duration_seconds', 'Duration of one step.', FINE);
    this.#timeToFirstToken = this.#histogram(
      'vllm:time_to_first_token_seconds',
      'From the request to its first token.',
      TIME_TO_FIRST_TOKEN,
    );
    const gap = 'Between two items of one sequence.';
    this.#interTokenLatency = this.#histogram('vllm:inter_token_latency_seconds', gap, INTER_TOKEN);
    this.#fineInterTokenLatency = this.#histogram('heddle:inter_token_latency_seconds', gap, FINE);
    this.#requestHistograms = this.#defineRequestHistograms(maxModelLen);
  }

  observeStep(seconds: number, numTokens: number): void {
    this.#iterationTokens.observe(numTokens);
    this.#stepDuration.observe(seconds);
  }

  observeFirstToken(seconds: number): void {
    this.#timeToFirstToken.observe(seconds);
  }

  observeNextToken(seconds: number): void {
    this.#interTokenLatency.observe(seconds);
    this.#fineInterTokenLatency.observe(seconds);
  }

  /** A request that the engine worked on is over. */
  observeRequest(output: GenerationOutput, maxTokens: number): void {
    for (const { finishReason } of output.outputs) this.#requestSuccess.inc({ finished_reason: finishReason });
    const figures = figuresOf(output, maxTokens);
    for (const [histogram, value] of this.#requestHistograms) {
      const figure = value(figures);
      if (figure !== undefined) histogram.observe(figure);
    }
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: [this.registry] });
  }

  #defineGauges(cacheConfig: MetricsOptions['cacheConfig']): void {
    const define = (name: string, help: string, read: (stats: EngineStats) => number): void => {
      const readStats = this.#readStats;
      new Gauge({
        name,
        help,
        registers: [this.registry],
        collect() {
          this.set(read(readStats()));
        },
      });
    };
    define('vllm:num_requests_running', 'Sequences being computed.', (stats) => stats.numRunning);
    define('vllm:num_requests_waiting', 'Sequences that wait.', (stats) => stats.numWaiting);
    define('vllm:kv_cache_usage_perc', 'Share of KV-cache blocks in use, 0 to 1.', (stats) => stats.kvCacheUsage);
    const labels = Object.fromEntries(Object.entries(cacheConfig).map(([key, value]) => [key, String(value)]));
    new Gauge({
      name: 'vllm:cache_config_info',
      help: 'How the KV cache is set up.',
      labelNames: Object.keys(labels),
      registers: [this.registry],
    }).set(labels, 1);
  }

  #defineCounters(): void {
    const define = (
      name: string,
      help: string,
      read: (stats: ReturnType<MetricsOptions['readStats']>) => number,
    ): void => {
      const readStats = this.#readStats;
      new Counter({
        name,
        help,
        registers: [this.registry],
        // The engine counts; a counter of prom-client can only be added to.
        collect() {
          this.reset();
          this.inc(read(readStats()));
        },
      });
    };
    define(
      'vllm:prefix_cache_queries_total',
      'Prompt tokens looked up in the prefix cache.',
      (s) => s.prefixCacheQueries,
    );
    define('vllm:prefix_cache_hits_total', 'Prompt tokens found in the prefix cache.', (s) => s.prefixCacheHits);
    define('vllm:num_preemptions_total', 'Sequences that gave up their blocks.', (s) => s.numPreemptions);
    define('vllm:prompt_tokens_total', 'Prompt tokens of requests that got their first token.', (s) => s.promptTokens);
    define('vllm:generation_tokens_total', 'Generated tokens.', (s) => s.generatedTokens);
    define('heddle:native_callbacks_total', 'Calls of the engine into JavaScript.', (s) => s.callbacks);
  }

  #defineRequestHistograms(maxModelLen: number): [Histogram, (request: RequestFigures) => number | undefined][] {
    const lengths = oneTwoFive(maxModelLen);
    const request = (name: string, help: string, buckets: number[], value: (r: RequestFigures) => number | undefined) =>
      [this.#histogram(`vllm:${name}`, help, buckets), value] as [Histogram, typeof value];
    return [
      request('e2e_request_latency_seconds', 'From the request to its end.', REQUEST_TIME, (r) => r.total),
      request('request_queue_time_seconds', 'From the request to its first step.', REQUEST_TIME, (r) => r.queue),
      request(
        'request_inference_time_seconds',
        'From the first step to the end.',
        REQUEST_TIME,
        (r) => r.total - r.queue,
      ),
      request(
        'request_prefill_time_seconds',
        'From the first step to the first token.',
        REQUEST_TIME,
        (r) => r.first - r.queue,
      ),
      request(
        'request_decode_time_seconds',
        'From the first token to the end.',
        REQUEST_TIME,
        (r) => r.total - r.first,
      ),
      request('request_time_per_output_token_seconds', 'Mean time of a token after the first.', INTER_TOKEN, (r) =>
        r.longestOutput > 1 ? (r.total - r.first) / (r.longestOutput - 1) : undefined,
      ),
      request('request_prompt_tokens', 'Tokens of the prompt.', lengths, (r) => r.promptTokens),
      request(
        'request_prefill_kv_computed_tokens',
        'Prompt tokens not found in the prefix cache.',
        lengths,
        (r) => r.computedTokens,
      ),
      request('request_generation_tokens', 'Generated tokens.', lengths, (r) => r.generatedTokens),
      request('request_max_num_generation_tokens', 'Tokens of the longest sequence.', lengths, (r) => r.longestOutput),
      request('request_params_n', 'Sequences asked for.', [1, 2, 5, 10, 20], (r) => r.n),
      request('request_params_max_tokens', 'Generated tokens allowed.', lengths, (r) => r.maxTokens),
    ];
  }
}

/** A finished request; times in seconds since it was made. */
interface RequestFigures {
  queue: number;
  first: number;
  total: number;
  promptTokens: number;
  computedTokens: number;
  generatedTokens: number;
  longestOutput: number;
  n: number;
  maxTokens: number;
}

function figuresOf({ outputs, usage, timing }: GenerationOutput, maxTokens: number): RequestFigures {
  return {
    queue: timing.queueMs / 1000,
    first: timing.timeToFirstTokenMs / 1000,
    total: timing.totalMs / 1000,
    promptTokens: usage.promptTokens,
    computedTokens: usage.promptTokens - usage.cachedTokens,
    generatedTokens: usage.completionTokens,
    longestOutput: Math.max(...outputs.map((output) => output.tokenIds.length)),
    n: outputs.length,
    maxTokens,
  };
}
