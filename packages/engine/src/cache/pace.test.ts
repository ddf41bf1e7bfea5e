import { describe, expect, it } from 'vitest';
import { Pace } from './pace.ts';

describe('Pace', () => {
  it('counts the time of reads that overlap once, and none between them', () => {
    let now = 100;
    const pace = new Pace({ now: () => now });
    const first = pace.start();
    const second = pace.start();
    now = 130;
    expect(first()).toBe(30);
    now = 135;
    expect(second()).toBe(5);
    now = 500;
    const third = pace.start();
    now = 510;
    expect(third()).toBe(10);
  });
});
