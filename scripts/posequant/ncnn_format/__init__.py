"""ncnn's `.param` and `.bin` files, and what their integers can hold."""
