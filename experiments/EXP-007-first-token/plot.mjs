// Time to first token by source and prompt length, as an SVG that is readable on light and on dark pages.
const COLOURS = { fresh: '#d9534f', restart: '#b07aa1', disk: '#4e8fd0', warm: '#e0912f', hot: '#3fa66b' };
const NAMES = {
  fresh: 'computed afresh',
  restart: 'disk, after a restart',
  disk: 'disk, page cache dropped',
  warm: 'host memory',
  hot: 'pool',
};

/** @param series by source: milliseconds per length */
export function plot(lengths, series) {
  const [width, height, left, top, right, bottom] = [720, 400, 70, 46, 20, 84];
  const values = Object.values(series).flat();
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  const decades = Math.log10(high / low);
  const y = (value) => top + (height - top - bottom) * (1 - Math.log10(value / low) / decades);
  const groupWidth = (width - left - right) / lengths.length;
  const sources = Object.keys(COLOURS);
  const barWidth = groupWidth / (sources.length + 1.5);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" role="img">`,
    '<title>Time to first token by where the prompt’s KV was found</title>',
    '<style>text{fill:#333}.grid{stroke:#8884}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>',
    `<text x="${left}" y="22" font-size="15" font-weight="600">Time to first token, ms (logarithmic), bundled model</text>`,
  ];
  for (let power = Math.log10(low); power <= Math.log10(high); power++) {
    const at = y(10 ** power).toFixed(1);
    parts.push(`<line class="grid" x1="${left}" x2="${width - right}" y1="${at}" y2="${at}"/>`);
    parts.push(
      `<text x="${left - 8}" y="${Number(at) + 4}" text-anchor="end">${(10 ** power).toLocaleString('en')}</text>`,
    );
  }
  for (const [group, numTokens] of lengths.entries()) {
    const start = left + group * groupWidth + barWidth * 0.75;
    for (const [index, source] of sources.entries()) {
      const value = series[source][group];
      const x = start + index * barWidth;
      const base = height - bottom;
      parts.push(
        `<rect x="${x.toFixed(1)}" y="${y(value).toFixed(1)}" width="${(barWidth * 0.86).toFixed(1)}" height="${(base - y(value)).toFixed(1)}" rx="2" fill="${COLOURS[source]}"/>`,
        `<text x="${(x + barWidth * 0.43).toFixed(1)}" y="${(y(value) - 4).toFixed(1)}" text-anchor="middle" font-size="10">${value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString('en')}</text>`,
      );
    }
    const middle = (left + (group + 0.5) * groupWidth).toFixed(1);
    parts.push(
      `<text x="${middle}" y="${height - bottom + 20}" text-anchor="middle">${numTokens.toLocaleString('en')} tokens</text>`,
    );
  }
  let x = left;
  for (const source of sources) {
    parts.push(`<rect x="${x}" y="${height - 36}" width="11" height="11" rx="2" fill="${COLOURS[source]}"/>`);
    parts.push(`<text x="${x + 16}" y="${height - 26}">${NAMES[source]}</text>`);
    x += 34 + NAMES[source].length * 6.3;
  }
  return `${[...parts, '</svg>'].join('\n')}\n`;
}
