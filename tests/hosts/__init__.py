"""Several hosts on one machine, and the engines that place peers on them."""
