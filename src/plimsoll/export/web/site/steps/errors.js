/** Something is wrong with the picture; the message says what was found and what was expected. */
export class PictureError extends Error {
  constructor(message) {
    super(message);
    this.name = "PictureError";
  }
}
