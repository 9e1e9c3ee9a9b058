"""How fast chatd is: the same load on chatd and on others, side by side, in one sitting."""
