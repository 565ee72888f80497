"""The experiments of the chapters, one module a chapter, named as the chapter."""
