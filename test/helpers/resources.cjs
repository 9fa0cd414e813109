// What a leak would add to: handles of the event loop, file descriptors, threads.
const { readdirSync } = require('node:fs');

exports.resources = () => {
  const handles = process.getActiveResourcesInfo().filter((name) => name !== 'Timeout' && name !== 'Immediate');
  const onLinux = process.platform === 'linux';
  return {
    handles: handles.sort(),
    descriptors: onLinux ? readdirSync('/proc/self/fd').length : 0,
    threads: onLinux ? readdirSync('/proc/self/task').length : 0,
  };
};

/** Polls for ten seconds until `read()` equals `expected`; gives what it read last. */
exports.settled = async (read, expected) => {
  const deadline = performance.now() + 10_000;
  let seen = read();
  while (JSON.stringify(seen) !== JSON.stringify(expected) && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    seen = read();
  }
  return seen;
};
