/** Files that are sent with a message: pictures, made smaller, and texts. */

import { t } from "./words.js";

const MAX_TEXT_BYTES = 256 << 10, MAX_PIXELS = 1024, JPEG_QUALITY = 0.85;

/** Return a file in the shape of `chats.js`. Throws an Error that says why it cannot be sent. */
export async function attachment(file, seesPictures) {
  if (file.type.startsWith("image/") && file.type !== "image/svg+xml") {
    if (!seesPictures) throw new Error(t("This model does not see pictures"));
    return { name: file.name, kind: "picture", data: await smaller(file) };
  }
  if (file.size > MAX_TEXT_BYTES) throw new Error(t("{name} is larger than {limit} kB", { name: file.name, limit: MAX_TEXT_BYTES >> 10 }));
  const data = await textOf(file);
  if (data === null) throw new Error(t("{name} is neither a picture nor a text", { name: file.name }));
  return { name: file.name, kind: "text", data };
}

async function textOf(file) {
  try {
    const data = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return data.includes("\0") ? null : data;
  } catch { return null; }
}

/** Return a picture of at most MAX_PIXELS on each side, because the storage of a browser is small. */
async function smaller(file) {
  let picture;
  try { picture = await createImageBitmap(file); } catch { throw new Error(t("{name} cannot be read as a picture", { name: file.name })); }
  const scale = Math.min(1, MAX_PIXELS / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";  // JPEG has no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", JPEG_QUALITY);
}
