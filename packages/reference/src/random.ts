/**
 * A seeded stream of random numbers, the same on every machine.
 * Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators" (xoshiro128**), 2021.
 */
export class Random {
  private readonly state = new Uint32Array(4);

  constructor(seed: number) {
    // SplitMix32 spreads the seed over the state, which must not be all zero.
    let z = seed >>> 0;
    for (let i = 0; i < 4; i++) {
      z = (z + 0x9e3779b9) >>> 0;
      let mixed = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
      this.state[i] = mixed ^ (mixed >>> 15);
    }
  }

  /** Uniform 32-bit unsigned integer. */
  next(): number {
    const { 0: a = 0, 1: b = 0, 2: c = 0, 3: d = 0 } = this.state;
    const times5 = Math.imul(b, 5);
    const result = Math.imul((times5 << 7) | (times5 >>> 25), 9) >>> 0;
    this.state[2] = c ^ a;
    this.state[3] = d ^ b;
    this.state[1] = b ^ (c ^ a);
    this.state[0] = a ^ (d ^ b);
    this.state[2] = c ^ a ^ (b << 9);
    const rotating = d ^ b;
    this.state[3] = (rotating << 11) | (rotating >>> 21);
    return result;
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    return this.next() / 2 ** 32;
  }

  /** Uniform integer in [low, high). */
  integer(low: number, high: number): number {
    return low + Math.floor(this.uniform() * (high - low));
  }

  /** Normal with mean 0 and deviation 1 (Box-Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  normals(count: number, deviation: number, mean = 0): Float64Array {
    const values = new Float64Array(count);
    for (let i = 0; i < count; i++) values[i] = mean + deviation * this.normal();
    return values;
  }

  bytes(count: number): Uint8Array {
    const values = new Uint8Array(count);
    for (let i = 0; i < count; i++) values[i] = this.next();
    return values;
  }
}
