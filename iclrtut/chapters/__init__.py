"""One module a chapter, named as the chapter; none imports another."""
