"""From files, folders and Hub data sets to tokenised splits that share no text."""
