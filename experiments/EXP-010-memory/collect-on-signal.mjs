// Loaded into the server for this measurement only: SIGUSR2 collects garbage, so that growth is not mistaken for delay,
// and reports on standard error what JavaScript holds.
process.on('SIGUSR2', () => {
  globalThis.gc();
  setImmediate(() => {
    globalThis.gc();
    process.stderr.write(`MEMORY ${JSON.stringify(process.memoryUsage())}\n`);
  });
});
