// Wei are BigInt and rates are fractions of BigInt: no float touches money.

const WEI_PER_ETH = 10n ** 18n;
const GWEI = 10n ** 9n;

/** "7/2", "3" or "3127.5" as [numerator, denominator]. */
export function fraction(text) {
  const [above, below = "1"] = text.split("/");
  const [whole, decimals = ""] = above.split(".");
  return [BigInt(whole + decimals), BigInt(below) * 10n ** BigInt(decimals.length)];
}

/** What so many pixels cost, rounded up as the network does. */
export function feeOf(pixels, weiPerPixel) {
  const [price, unit] = fraction(weiPerPixel);
  return (BigInt(pixels) * price + unit - 1n) / unit;
}

function decimal(value, unit, digits) {
  const scaled = (value * 10n ** BigInt(digits) + unit / 2n) / unit;
  const text = scaled.toString().padStart(digits + 1, "0");
  const cut = text.length - digits;
  const whole = text.slice(0, cut).replace(/\B(?=(\d{3})+$)/g, ",");
  const rest = text.slice(cut).replace(/0+$/, "");
  return rest ? `${whole}.${rest}` : whole;
}

/** All digits, for whoever wants to know. */
export const exactWei = (wei) => `${decimal(wei, 1n, 0)} wei`;

/** In the unit in which it can be read. */
export function weiText(wei) {
  if (wei >= WEI_PER_ETH / 10_000n) return `${decimal(wei, WEI_PER_ETH, 6)} ETH`;
  if (wei >= GWEI / 1000n) return `${decimal(wei, GWEI, wei >= GWEI * 1000n ? 0 : 3)} gwei`;
  return exactWei(wei);
}

/** Dollars, as exact as is of use; null without a rate. */
export function dollarText(wei, usdPerEth) {
  if (!usdPerEth) return null;
  const [rate, unit] = fraction(usdPerEth);
  return readable(wei * rate, WEI_PER_ETH * unit);
}

/** What is left of a budget in dollars, "4.995572781056", as exact as is of use. */
export function budgetText(usd) {
  return readable(...fraction(usd));
}

function readable(value, whole) {
  if (value === 0n) return "$0";
  if (value * 1_000_000n < whole) return "under $0.000001";
  if (value * 100n < whole) return `$${decimal(value, whole, 6)}`;
  return `$${decimal(value, whole, value < whole ? 4 : 2)}`;
}

/** Dollars where there is a rate, and the ether beside them: what to show first, and what next to it, or null. */
export function moneyTexts(wei, usdPerEth) {
  const dollars = dollarText(wei, usdPerEth);
  return dollars ? [dollars, weiText(wei)] : [weiText(wei), null];
}

export function moneyText(wei, usdPerEth) {
  const [first, second] = moneyTexts(wei, usdPerEth);
  return second ? `${first} (${second})` : first;
}
