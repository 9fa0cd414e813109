/** What a communicator's settings of NCCL are where nobody chose: NCCL's own. */
export const NCCL_DEFAULTS = {
  minCtas: -1,
  maxCtas: -1,
  cgaClusterSize: -1,
  nvlsCtas: -1,
  ctaPolicy: -1,
  collnetEnable: -1,
  trafficClass: -1,
  channelsPerNetPeer: -1,
  nvlinkCentricScheduling: -1,
  netName: '',
  commName: '',
};
