const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = 'January February March April May June July August September October November December'.split(' ');
const MS_PER_DAY = 86_400_000;

/** C's strftime in the C locale and local time, with `-` for no padding; an unknown directive stays as it is. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (whole, flag: string, directive: string) => {
    const text = directiveText(date, directive);
    if (text === null) return whole;
    return flag === '-' ? text.replace(/^[0 ]+(?=.)/, '') : text;
  });
}

function directiveText(date: Date, directive: string): string | null {
  const hour12 = date.getHours() % 12 === 0 ? 12 : date.getHours() % 12;
  switch (directive) {
    case 'a':
      return (DAYS[date.getDay()] as string).slice(0, 3);
    case 'A':
      return DAYS[date.getDay()] as string;
    case 'b':
    case 'h':
      return (MONTHS[date.getMonth()] as string).slice(0, 3);
    case 'B':
      return MONTHS[date.getMonth()] as string;
    case 'c':
      return strftime(date, '%a %b %e %H:%M:%S %Y');
    case 'd':
      return digits(date.getDate());
    case 'D':
    case 'x':
      return strftime(date, '%m/%d/%y');
    case 'e':
      return String(date.getDate()).padStart(2);
    case 'f':
      return `${digits(date.getMilliseconds(), 3)}000`;
    case 'F':
      return strftime(date, '%Y-%m-%d');
    case 'H':
      return digits(date.getHours());
    case 'I':
      return digits(hour12);
    case 'j':
      return digits(dayOfYear(date) + 1, 3);
    case 'm':
      return digits(date.getMonth() + 1);
    case 'M':
      return digits(date.getMinutes());
    case 'p':
      return date.getHours() < 12 ? 'AM' : 'PM';
    case 'S':
      return digits(date.getSeconds());
    case 'T':
    case 'X':
      return strftime(date, '%H:%M:%S');
    case 'R':
      return strftime(date, '%H:%M');
    case 'u':
      return String(date.getDay() === 0 ? 7 : date.getDay());
    case 'w':
      return String(date.getDay());
    case 'U':
      return digits(Math.floor((dayOfYear(date) + 7 - date.getDay()) / 7));
    case 'W':
      return digits(Math.floor((dayOfYear(date) + 7 - ((date.getDay() + 6) % 7)) / 7));
    case 'y':
      return digits(date.getFullYear() % 100);
    case 'Y':
      return String(date.getFullYear());
    // Python's now() knows no time zone and prints nothing for these.
    case 'z':
    case 'Z':
      return '';
    case '%':
      return '%';
    default:
      return null;
  }
}

function digits(value: number, width = 2): string {
  return String(value).padStart(width, '0');
}

function dayOfYear(date: Date): number {
  const start = Date.UTC(date.getFullYear(), 0, 1);
  return Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / MS_PER_DAY);
}
