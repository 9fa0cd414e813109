/**
 * What crosses the native boundary: validated options to the native module's types, and its figures to the public ones.
 *
 * @module
 */
import type { EngineStats, MemoryPlan } from '../../types/outputs';
import type { ResolvedEngineConfig } from '../config/engine-config';
import { ncclEnvironment } from '../config/nccl-options';
import type { ResolvedSamplingParams } from '../config/sampling-params';
import type { NativeEngineConfig, NativeMemoryPlan, NativeSamplingParams, NativeStats } from '../native/binding';

/** @param packedWeights - As in {@link NativeEngineConfig}. */
export function toNativeConfig(
  config: ResolvedEngineConfig,
  eosTokenIds: Int32Array,
  packedWeights = '',
): NativeEngineConfig {
  const { onProgress: _onProgress, packedWeightCache: _folder, nccl, ...rest } = config;
  const environment = ncclEnvironment(nccl);
  return { ...rest, nccl: { ...nccl.communicator, environment }, eosTokenIds, packedWeights };
}

/**
 * @param room - Tokens that may still be generated, at least 1.
 * @param badWords - Token sequences of `params.badWords`.
 */
export function toNativeParams(
  params: ResolvedSamplingParams,
  room: number,
  badWords: Int32Array[],
): NativeSamplingParams {
  const { outputKind, ...rest } = params;
  const maxTokens = Math.min(params.maxTokens ?? room, room);
  return {
    ...rest,
    maxTokens,
    minTokens: Math.min(params.minTokens, maxTokens),
    badWords,
    finalOnly: outputKind === 'final_only',
  };
}

export function toEngineStats(stats: NativeStats): EngineStats {
  const { callbacks: _callbacks, lastStepAgeMs: _age, ...rest } = stats;
  const { numFreeBlocks, numTotalBlocks } = stats;
  return { ...rest, kvCacheUsage: numTotalBlocks > 0 ? 1 - numFreeBlocks / numTotalBlocks : 0 };
}

export function toMemoryPlan(plan: NativeMemoryPlan): MemoryPlan {
  const ranks = plan.ranks.map((bytes, rank) => ({ rank, ...bytes }));
  const totalBytes = ranks.reduce((sum, r) => sum + r.weightBytes + r.kvCacheBytes + r.activationBytes, 0);
  return {
    ranks,
    totalBytes,
    availableBytes: plan.availableBytes,
    fits: plan.fits,
    kvCacheTokens: plan.kvCacheTokens,
    kvCacheBytesPerToken: plan.kvCacheBytesPerToken,
    maxConcurrency: Math.floor(plan.kvCacheTokens / plan.maxModelLen),
    maxModelLen: plan.maxModelLen,
  };
}
