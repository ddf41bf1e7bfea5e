// Loaded into the server for this measurement only: SIGUSR2 collects garbage, so that growth is not mistaken for delay.
process.on('SIGUSR2', () => globalThis.gc());
