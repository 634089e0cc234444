"""Sources of images, one kind a file: where people have the images that `mpdit data prepare` reads."""
