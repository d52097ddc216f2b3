"""What peers say to each other and how they decide. Pure: bytes, `now_s` and seeds in, values or errors out."""
